"""Where an option's value comes from, which one wins, and what is said of one that cannot be used."""

from __future__ import annotations

import re
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import attrs
import pytest

from automoderate.backplane.memory import MemoryBackplane
from automoderate.core.hub import Limits
from automoderate.protocol.config import Config
from automoderate.settings import OPTIONS, Settings, SettingsError, load


def test_flag_over_environment_over_file_over_default(folder: Path) -> None:
    file = folder / "options.toml"
    file.write_text("port = 1003\nthreads = 3\nmax_rooms = 3\n")
    environment = {"AUTOMODERATE_PORT": "1002", "AUTOMODERATE_THREADS": "2"}
    loaded = load({"port": "1001", "host": None, "cors_origin": ()}, environment, file)
    assert (loaded.settings.port, loaded.sources["port"]) == (1001, "--port")
    assert (loaded.settings.threads, loaded.sources["threads"]) == (2, "AUTOMODERATE_THREADS")
    assert (loaded.settings.max_rooms, loaded.sources["max_rooms"]) == (3, str(file))
    assert (loaded.settings.host, loaded.sources["host"]) == (("127.0.0.1",), "default")
    assert loaded.sources["cors_origin"] == "default"


def test_old_keys_and_the_cookies_name_are_read_as_flask_names_them() -> None:
    environment = {"SECRET_KEY_FALLBACKS": "last-years another", "SESSION_COOKIE_NAME": "moderation"}
    settings = load({}, environment).settings
    assert settings.secret_key_fallbacks == ("last-years", "another")
    assert settings.session_cookie_name == "moderation"
    flags = {"secret_key_fallbacks": ("with a space, and a comma",), "session_cookie_name": "own"}
    settings = load(flags, environment).settings
    assert (settings.secret_key_fallbacks, settings.session_cookie_name) == (("with a space, and a comma",), "own")
    assert "space" not in repr(settings)


def test_an_old_key_may_have_any_character_that_a_new_one_may() -> None:
    keys = ("one,with;commas,", "and=another:one")
    loaded = load({}, {"SECRET_KEY_FALLBACKS": f" {keys[0]}  {keys[1]}"})
    assert loaded.settings.secret_key_fallbacks == keys


def test_a_unix_socket_is_listened_on_alone(folder: Path) -> None:
    (folder / "options.toml").write_text("port = 80")
    for flags, environment, file, other in (
        ({"host": ("::",)}, {}, None, "host (from --host)"),
        ({}, {"AUTOMODERATE_PORT": "80"}, None, "port (from AUTOMODERATE_PORT)"),
        ({}, {}, "options.toml", "port (from options.toml)"),
    ):
        with pytest.raises(SettingsError) as caught:
            load({**flags, "uds": "/run/a"}, environment, file)
        assert str(caught.value) == f"uds /run/a (from --uds): is listened on alone; leave out {other}"


def test_secret_key_and_database_url_are_read_as_automoderate_names_them() -> None:
    environment = {"SECRET_KEY": "k", "DATABASE_URL": "sqlite:///x.db"}
    assert load({}, environment).settings.secret_key == "k"
    assert load({}, environment).settings.database_url == "sqlite:///x.db"
    ours = environment | {"AUTOMODERATE_SECRET_KEY": "own", "AUTOMODERATE_DATABASE_URL": "postgresql://h/x"}
    assert load({}, ours).settings.secret_key == "own"
    assert load({}, ours).sources["secret_key"] == "AUTOMODERATE_SECRET_KEY"
    assert load({}, ours).settings.database_url == "postgresql://h/x"


def test_an_empty_variable_counts_as_absent() -> None:
    loaded = load({}, {"SECRET_KEY": "", "AUTOMODERATE_PORT": "", "AUTOMODERATE_CONFIG": ""})
    assert loaded.settings == Settings()
    assert set(loaded.sources.values()) == {"default"}


@pytest.mark.parametrize("value", ["tcp://10.96.0.5:6217", "udp://10.96.0.5:6217", "tcp://[fd00::5]:6217"])
def test_what_kubernetes_says_of_a_service_of_our_name_is_no_port(value: str) -> None:
    loaded = load({}, {"AUTOMODERATE_PORT": value, "AUTOMODERATE_SERVICE_HOST": "10.96.0.5"})
    assert (loaded.settings.port, loaded.sources["port"]) == (6217, "default")
    with pytest.raises(SettingsError, match="must be a whole number"):
        load({"port": value}, {})


def test_the_file_may_be_named_in_the_environment(folder: Path) -> None:
    (folder / "a.toml").write_text("port = 1")
    (folder / "b.toml").write_text("port = 2")
    assert load({}, {"AUTOMODERATE_CONFIG": "a.toml"}).settings.port == 1
    assert load({}, {"AUTOMODERATE_CONFIG": "a.toml"}, "b.toml").settings.port == 2


def test_a_file_may_begin_with_a_mark_of_its_encoding(folder: Path) -> None:
    (folder / "a.toml").write_text("port = 1", "utf-8-sig")  # as editors on Windows do
    assert load({}, {}, "a.toml").settings.port == 1


def test_options_that_may_be_repeated(folder: Path) -> None:
    (folder / "a.toml").write_text('cors_origin = ["https://a.example"]\ntrusted_proxy = ["10.0.0.0/8", "::1"]')
    settings = load({}, {}, "a.toml").settings
    assert settings.cors_origin == ("https://a.example",)
    assert settings.trusted_proxy == (ip_network("10.0.0.0/8"), ip_network("::1/128"))
    several = {"AUTOMODERATE_CORS_ORIGIN": " https://a.example,http://b.example:81  * "}
    assert load({}, several).settings.cors_origin == ("https://a.example", "http://b.example:81", "*")
    assert load({"cors_origin": ("http://c",)}, several).settings.cors_origin == ("http://c",)


def test_contents_have_pages_here_or_elsewhere() -> None:
    for template in (
        "/dashboard/content/{content_id}",
        "/{content_id}",
        "https://moderation.example.org:8443/p/{project_id}?content={content_id}#top",
        "http://[::1]:8000/{content_id}",
    ):
        assert load({"content_url": template}, {}).settings.content_url == template
    with pytest.raises(SettingsError, match=r"content_url /\{content_id\} \(from --content-url\): is for our own"):
        load({"content_url": "/{content_id}"}, {"AUTOMODERATE_WSGI": "run:app"})


@pytest.mark.parametrize(
    "origin",
    [
        "capacitor://localhost", "ionic://localhost", "tauri://localhost", "https://tauri.localhost", "http://localhost",
        "app://-", "app://obsidian.md", "file://", "null", "chrome-extension://kjbdgfilnfhdoflbpgamdcdgpehopbep",
        "moz-extension://2c127fa4-62c7-7e4f-90e5-472b45eecfdc", "vscode-webview://1a2b3c", "com.example.app://localhost:8080",
    ],
)  # fmt: skip
def test_the_shells_of_applications_are_origins_too(origin: str) -> None:
    assert load({"cors_origin": (origin,)}, {}).settings.cors_origin == (origin,)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("adapter", "threads", "must be one of asyncio"),
        ("host", "http://localhost", "without scheme or port"),
        ("host", "localhost:80", "without scheme or port"),
        ("host", " ", "must be text"),
        ("host", [], "must not be empty"),
        ("uds", "", "must be text"),
        ("session_cookie_name", "my session", "must be the name of a cookie"),
        ("session_cookie_name", "ann=1", "must be the name of a cookie"),
        ("secret_key_fallbacks", [5], "must be text"),
        ("keep_alive", "0", "greater than 0"),
        ("content_url", "/content", "must be a path such as"),
        ("content_url", "{content_id}", "must be a path such as"),
        ("content_url", "content/{content_id}", "must be a path such as"),
        ("content_url", "//elsewhere.example/{content_id}", "must be a path such as"),
        ("content_url", "/\\elsewhere.example/{content_id}", "must be a path such as"),
        ("content_url", "javascript:alert({content_id})", "must be a path such as"),
        ("content_url", "https://{content_id}.example/{content_id}", "must be a path such as"),
        ("content_url", "https://ann@example.org/{content_id}", "must be a path such as"),
        ("content_url", "/content/{content_id}/{id}", "must be a path such as"),
        ("content_url", "/content/{{content_id}}", "must be a path such as"),
        ("content_url", "/content/{content_id}/}", "must be a path such as"),
        ("content_url", "/con tent/{content_id}", "must be a path such as"),
        ("max_request_body", "-1", "from 0 to"),
        ("host", "a..b", "must be a host name"),
        ("host", "a" * 64, "must be a host name"),
        ("port", "99999", "from 0 to 65535"),
        ("port", "-1", "from 0 to 65535"),
        ("port", "http", "from 0 to 65535"),
        ("port", 80.5, "from 0 to 65535"),
        ("port", True, "from 0 to 65535"),
        ("database_url", "mysql://root@h/x", "use sqlite:/// or postgresql://"),
        ("database_url", "nonsense", "write sqlite:///"),
        ("secret_key", "\n", "must be text"),
        ("secret_key", "0123456789abcdef\n", "it has a line end in it"),
        ("secret_key", 5, "must be text"),
        ("wsgi", "module", "must be MODULE:APPLICATION"),
        ("wsgi", "module:f(x)", "must be MODULE:APPLICATION"),
        ("wsgi", 1, "must be MODULE:APPLICATION"),
        ("cors_origin", "https://a.example/", "no path"),
        ("cors_origin", "https://*.example", "must be an origin"),
        ("cors_origin", "a.example", "must be an origin"),
        ("cors_origin", "//a.example", "must be an origin"),
        ("cors_origin", "https://", "must be an origin"),
        ("cors_origin", "capacitor:localhost", "must be an origin"),
        ("cors_origin", "capacitor://localhost/", "no path"),
        ("cors_origin", "file:///", "no path"),
        ("cors_origin", "Null", "must be an origin"),
        ("cors_origin", "https://a.example:port", "must be an origin"),
        ("cors_origin", "https://me@a.example", "must be an origin"),
        ("cors_origin", ["https://a b.example"], "must be an origin"),
        ("cors_origin", "https://bücher.example", "in ASCII (xn--"),
        ("cors_origin", [5], "must be an origin"),
        ("cors_origin", 5, "must be a list"),
        ("trusted_proxy", "10.0.0.1/8", "10.0.0.1/8 is an address within 10.0.0.0/8"),
        ("trusted_proxy", "10.0.0.0/99", "such as 10.0.0.0/8"),
        ("trusted_proxy", "proxy.example", "such as 10.0.0.0/8"),
        ("trusted_proxy", [1], "such as 10.0.0.0/8"),
        ("log_level", "loud", "must be one of: debug, info"),
        ("log_level", 10, "must be one of: debug, info"),
        ("log_format", "xml", "must be text or json"),
        ("ping_interval", "-1", "greater than 0"),
        ("ping_interval", "0", "greater than 0"),
        ("ping_timeout", "nan", "greater than 0"),
        ("ping_interval", "1e308", "at most 1000000"),
        ("keep_alive", "1000001", "at most 1000000"),
        ("check_timeout", "inf", "greater than 0"),
        ("check_timeout", "soon", "greater than 0"),
        ("check_timeout", False, "greater than 0"),
        ("auth_grace", "-0.1", "0 or more"),
        ("drain_timeout", [], "0 or more"),
        ("max_rooms", "0", "from 1 to"),
        ("threads", None, "from 1 to"),
    ],
)
def test_a_value_that_cannot_be_used_is_one_line_with_source_and_fix(name: str, value: Any, said: str) -> None:
    if isinstance(value, str) and value.strip():
        with pytest.raises(SettingsError) as caught:
            load({name: value}, {})
        assert str(caught.value).startswith(name)
        assert f"(from {OPTIONS[name].flag}): " in str(caught.value)
        assert said in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=re.escape(said)):
        Settings(**{name: value})


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("port", "80\n81", r"'80\n81'"),
        ("host", "http://a\nb", r"'http://a\nb'"),
        ("node", "a\x1b[31m", r"'a\x1b[31m'"),
        ("cors_origin", ("https://a", "b\n"), r"'https://a, b\n'"),
        ("max_rooms", "9" * 5000, "9" * 99 + "…"),
    ],
)
def test_a_value_is_shown_on_one_line_whatever_is_in_it(name: str, value: Any, shown: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load({name: value}, {})
    assert str(caught.value).startswith(f"{name} {shown} (from ")
    assert str(caught.value).isprintable()


def test_a_proxy_may_be_named_as_an_ipv6_socket_shows_it() -> None:
    settings = load({"trusted_proxy": ("::ffff:10.0.0.1", "::ffff:192.0.2.0/120", "::/0")}, {}).settings
    assert settings.trusted_proxy == (ip_network("10.0.0.1"), ip_network("192.0.2.0/24"), ip_network("::/0"))


def test_zero_is_a_grace_and_a_drain_but_no_interval() -> None:
    settings = Settings(auth_grace=0, drain_timeout=0.0, port=0)
    assert (settings.auth_grace, settings.drain_timeout, settings.port) == (0.0, 0.0, 0)


def test_ipv6_addresses_may_have_brackets() -> None:
    assert Settings(host=("[::1]",)).host == ("::1",)
    assert load({"host": ("127.0.0.1", "::")}, {}).settings.host == ("127.0.0.1", "::")
    assert load({}, {"AUTOMODERATE_HOST": "::1, db_1.local"}).settings.host == ("::1", "db_1.local")


@pytest.mark.parametrize(
    ("contents", "said"),
    [
        (b"prot = 1", "unknown key prot; did you mean port?"),
        (b"ping-interval = 1", "unknown key ping-interval; did you mean ping_interval?"),
        (b"colour = 'red'", "unknown key colour; it may have adapter, host"),
        (b"[server]\nport = 1", "unknown key server"),
        (b"port = ", "is not TOML"),
        (b"\xff", "is not TOML"),
        (b"port = 99999", "port 99999 (from options.toml): must be a whole number from 0 to 65535"),
        (b"ping_interval = '-1'", "ping_interval -1 (from options.toml): "),
    ],
)
def test_a_bad_file_is_one_line(folder: Path, contents: bytes, said: str) -> None:
    (folder / "options.toml").write_bytes(contents)
    with pytest.raises(SettingsError) as caught:
        load({}, {}, "options.toml")
    assert said in str(caught.value)
    assert "options.toml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_channel_needs_the_redis_that_it_is_in(folder: Path) -> None:
    (folder / "options.toml").write_text('redis_channel = "flask-socketio"')
    for flags, environment, file, source in (
        ({"redis_channel": "socketio"}, {}, None, "socketio (from --redis-channel)"),
        ({}, {"AUTOMODERATE_REDIS_CHANNEL": "socketio"}, None, "socketio (from AUTOMODERATE_REDIS_CHANNEL)"),
        ({}, {}, "options.toml", "flask-socketio (from options.toml)"),
    ):
        with pytest.raises(SettingsError) as caught:
            load(flags, environment, file)
        assert str(caught.value) == f"redis_channel {source}: needs the Redis that it is in; set --redis-url"
        settings = load({**flags, "redis_url": "redis://h"}, environment, file).settings
        assert settings.redis_channel == source.partition(" ")[0]


def test_a_missing_file_is_one_line() -> None:
    with pytest.raises(SettingsError, match=r"cannot read the configuration file no\.toml: No such file"):
        load({}, {}, "no.toml")


def test_a_file_without_a_name_is_no_file_that_counts_as_absent() -> None:
    """A flag whose variable a shell did not know: the options of the file would be left out in silence."""
    with pytest.raises(SettingsError, match=r"config \(from --config\): must name a file"):
        load({}, {"AUTOMODERATE_CONFIG": "options.toml"}, "")
    assert load({}, {"AUTOMODERATE_CONFIG": ""}).settings.port == 6217


def test_secrets_are_in_no_message_and_no_repr() -> None:
    settings = Settings(secret_key="hush", database_url="postgresql://ann:hush@h/x")
    assert "hush" not in repr(settings)
    with pytest.raises(SettingsError) as caught:
        load({"database_url": "mysql://ann:hush@h/x"}, {})
    assert "hush" not in str(caught.value)


def test_the_defaults_are_those_of_what_they_configure() -> None:
    """Two places name these numbers; they have to agree."""
    settings = Settings()
    for target in (Config(), Limits()):
        for field in attrs.fields(type(target)):
            if field.name in OPTIONS:
                assert getattr(settings, field.name) == getattr(target, field.name), field.name
    assert (MemoryBackplane.__init__.__kwdefaults__ or {})["entries"] == settings.history_entries


def test_every_option_has_a_flag_a_variable_and_a_line_of_help() -> None:
    for name, option in OPTIONS.items():
        assert option.flag == f"--{name.replace('_', '-')}"
        assert option.variables[0] == f"AUTOMODERATE_{name.upper()}"
        assert option.help.endswith(".")
