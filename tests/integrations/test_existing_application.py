"""An application that keeps its settings, its database and its log itself, served with ``--wsgi``."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from automoderate import app
from automoderate.directory.database import Database
from automoderate.settings import Settings, load
from kits import PATIENCE
from kits.existing_site import SECRET, ExistingSite

Open = Callable[..., ExistingSite]

OURS = "automoderate.sqlite3"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Open]:
    """Write the application into the test's folder, and stop its server at the end."""
    made: list[ExistingSite] = []

    def make(*arguments: str, **options: str) -> ExistingSite:
        made.append(ExistingSite(tmp_path, *arguments, **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


def checked(site: ExistingSite, *arguments: str) -> tuple[int, str, str]:
    """What ``--check-config`` ends with and says: exit status, the lines of the result, the errors."""
    result = subprocess.run(
        [sys.executable, "-m", "automoderate", "serve", "--check-config", *arguments], cwd=site.folder,
        env=site.server.environment, capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    said = [line for line in result.stdout.splitlines() if re.match("# the database|# This", line)]
    errors = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    return result.returncode, "\n".join(said), "\n".join(errors)


NO_DATABASE = "import flask\napp = flask.Flask(__name__)\napp.secret_key = 'long enough for anybody'\n"
NO_FLASK = "def app(environ, start_response):\n    start_response('200 OK', [])\n    return [b'plain']\n"


# Its database -------------------------------------------------------------------------------------------------


def test_what_the_application_keeps_in_dotenv_is_what_counts(site: Open) -> None:
    existing = site(dotenv=f"SECRET_KEY={SECRET!r}\nDATABASE_URL=sqlite:///site.db\n")
    file = "instance/site.db"
    existing.server.start()
    client = existing.watch("bob")
    existing.publish()
    client.expect("stats_update")
    assert requests.get(existing.url, timeout=PATIENCE).text == "the existing application"
    assert (existing.folder / file).exists()
    assert list(existing.folder.rglob(OURS)) == []
    assert checked(existing, "--wsgi", "run:app") == (
        0, f"# the database that would be read: sqlite:///{existing.folder / file}\n# This would do.", "",
    )  # fmt: skip


def test_what_any_other_application_sets_when_it_is_imported_counts(site: Open) -> None:
    existing = site(dotenv=f"SECRET_KEY={SECRET!r}\nDATABASE_URL=sqlite:///plain.db\n")
    (existing.folder / "other.py").write_text(f"import dotenv\ndotenv.load_dotenv()\n{NO_FLASK}")
    database = Database(f"sqlite:///{existing.folder}/plain.db")
    database.create_all()
    database.close()
    assert checked(existing, "--wsgi", "other:app") == (
        0, "# the database that would be read: sqlite:///plain.db\n# This would do.", "",
    )  # fmt: skip


def test_middleware_around_the_application_changes_nothing_of_that(site: Open) -> None:
    existing = site("--wsgi", "wrapped:app", "--recheck-interval", "3600")
    (existing.folder / "wrapped.py").write_text(
        "import run\nfrom werkzeug.middleware.proxy_fix import ProxyFix\napp = ProxyFix(run.app)\n"
    )
    existing.server.start()
    client = existing.watch("bob")
    assert requests.get(existing.url, timeout=PATIENCE).text == "the existing application"
    existing.act("remove")
    existing.publish()
    assert client.expect("error")["code"] == "access_denied"
    assert client.events("stats_update") == []


def test_no_database_is_made_for_an_application_that_names_none(site: Open) -> None:
    existing = site("--wsgi", "other:app")
    (existing.folder / "other.py").write_text(NO_DATABASE)
    fix = (
        "Error: no database: the mounted application other:app names none in SQLALCHEMY_DATABASE_URI, and "
        "DATABASE_URL is not set; set --database-url"
    )
    assert not existing.server.try_to_start()
    assert existing.server.wait() == 3
    assert existing.server.log.splitlines()[-1] == fix
    assert checked(existing, "--wsgi", "other:app") == (3, "", fix)
    assert list(existing.folder.rglob("*.sqlite3")) == []


@pytest.fixture
def mounted(empty_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Settings]]:
    """Settings to mount an application, ``other:app`` with this source."""
    monkeypatch.syspath_prepend(str(empty_folder))

    def make(source: str, **options: Any) -> Settings:
        (empty_folder / "other.py").write_text(source)
        return load({"wsgi": "other:app", **options}, os.environ).settings

    yield make
    sys.modules.pop("other", None)


Mounted = Callable[..., Settings]


def test_an_option_wins_over_the_application_and_that_over_the_environment(
    mounted: Mounted, empty_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("option", "theirs", "environment", "ours"):
        database = Database(f"sqlite:///{empty_folder}/{name}.db")
        database.create_all()
        database.close()
    theirs = f"{NO_DATABASE}app.config['SQLALCHEMY_DATABASE_URI'] = 'sqlite:///../theirs.db'\n"
    monkeypatch.setenv("DATABASE_URL", "sqlite:///environment.db")
    assert app.examine(mounted(theirs, database_url="sqlite:///option.db")).database == "sqlite:///option.db"
    assert str(app.examine(mounted(theirs)).database).endswith("/instance/../theirs.db")
    assert app.examine(mounted(NO_DATABASE)).database is not None
    sys.modules.pop("other")
    assert app.examine(mounted(NO_DATABASE)).database == "sqlite:///environment.db"
    monkeypatch.setenv("AUTOMODERATE_DATABASE_URL", "sqlite:///ours.db")
    assert app.examine(mounted(theirs)).database == "sqlite:///ours.db"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("mysql://ann:hush@h/x", "mysql databases are not supported"),
        ("sqlite:///:memory:", "name a file"),
        ("nonsense hush", "it is no database URL"),
        ("sqlite:///nowhere.db", "there is no folder"),
        ("postgresql://ann:hush@h/x?autocommit=hush", "autocommit is no option"),
    ],
)
def test_a_database_of_the_application_that_cannot_be_used_is_one_line(mounted: Mounted, url: str, said: str) -> None:
    examined = app.examine(mounted(f"{NO_DATABASE}app.config['SQLALCHEMY_DATABASE_URI'] = {url!r}\n"))
    (problem,) = examined.problems
    assert said in problem
    assert "\n" not in problem
    assert "hush" not in problem
    assert examined.database is None


def test_no_database_of_ours_is_advised_where_the_applications_is_missing(mounted: Mounted, empty_folder: Path) -> None:
    """One that the application did not make would be empty, and every visitor unknown."""
    fix = "; the application has to make its database, or --database-url to name the right one"
    file = empty_folder / "missing.db"
    source = f"{NO_DATABASE}app.config['SQLALCHEMY_DATABASE_URI'] = 'sqlite:///{file}'\n"
    (problem,) = app.examine(mounted(source)).problems
    assert problem == f"cannot open sqlite:///{file}: there is no file {file}{fix}"
    file.touch()
    (problem,) = app.examine(mounted(source)).problems
    assert problem == f"sqlite:///{file} has no table api_keys, project_members, projects, users{fix}"


@pytest.mark.parametrize(
    ("configured", "path"),
    [
        ("", None),
        ("APPLICATION_ROOT='/site'", "/site"),
        ("SESSION_COOKIE_PATH='/socket', APPLICATION_ROOT='/'", "/socket"),
        ("SESSION_COOKIE_PATH='/socket.io'", None),
        ("SESSION_COOKIE_PATH='/socket.io/', APPLICATION_ROOT='/site'", None),
    ],
)
def test_a_cookie_that_no_browser_sends_to_the_endpoint_is_named(
    mounted: Mounted, caplog: pytest.LogCaptureFixture, configured: str, path: str | None
) -> None:
    app.examine(mounted(f"{NO_DATABASE}app.config.update({configured})\n"))
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    if path is None:
        assert warnings == []
    else:
        (warning,) = warnings
        assert warning.startswith(f"browsers send the session cookie of other:app below {path} only, and not to")
        assert "SESSION_COOKIE_PATH" in warning


# What its pages take away ------------------------------------------------------------------------------------


def test_access_ends_with_the_commit_that_takes_it_away(site: Open) -> None:
    """Long before the next re-check: nothing that is published once the page has answered reaches whom it removed."""
    existing = site("--recheck-interval", "3600", "--log-level", "debug")
    existing.server.start()
    witness, client, elsewhere = existing.watch("alice"), existing.watch("bob"), existing.watch("bob", "Q")
    existing.act("remove", "rollback")
    existing.publish()
    for each in (client, witness):
        assert each.expect("stats_update")
    existing.act("remove")
    existing.publish()
    assert client.expect("error")["code"] == "access_denied"
    assert witness.expect("stats_update")
    existing.act("deactivate")
    existing.publish()
    for each in (client, elsewhere):
        assert each.expect("error")["code"] == "authentication_required"
    assert witness.expect("stats_update")
    existing.act("remove_project")
    assert witness.expect("error")["code"] == "access_denied"
    for each in (client, elsewhere):
        assert each.rest() == [("disconnect", None)]
    assert witness.settle() == []
    assert [len(each.events("stats_update")) for each in (witness, client, elsewhere)] == [3, 1, 0]


# How it is named ----------------------------------------------------------------------------------------------


def test_a_factory_takes_arguments(site: Open) -> None:
    existing = site("--wsgi", "app:create_app('staging', database='sqlite:///other.db')")
    existing.server.start()
    assert requests.get(f"{existing.url}/configuration", timeout=PATIENCE).text == "staging"
    assert requests.get(existing.url, timeout=PATIENCE).status_code == 404
    existing.watch("bob")
    assert (existing.folder / "instance" / "other.db").exists()


# Its log ------------------------------------------------------------------------------------------------------

FILE = """
[loggers]
keys = root, app
[handlers]
keys = console
[formatters]
keys = theirs
[logger_root]
level = INFO
handlers = console
[logger_app]
level = INFO
qualname = app
handlers =
[handler_console]
class = StreamHandler
formatter = theirs
args = ()
[formatter_theirs]
format = THEIRS %(levelname)s %(name)s %(message)s
"""


@pytest.mark.parametrize("configured", ["dict", "file", "off", ""])
def test_neither_log_is_changed_by_the_other(site: Open, configured: str) -> None:
    existing = site()
    (existing.folder / "logging.ini").write_text(FILE)
    existing.server.environment["LOGGING"] = {"file": "logging.ini"}.get(configured, configured)
    existing.server.start()
    existing.watch("bob")
    with requests.Session() as anonymous:
        polling = f"{existing.url}/socket.io/?EIO=4&transport=polling"
        sid = anonymous.get(polling, timeout=PATIENCE).text.split('"')[3]
        anonymous.post(f"{polling}&sid={sid}", "40", timeout=PATIENCE)
        anonymous.get(f"{polling}&sid={sid}", timeout=PATIENCE)
    assert requests.post(f"{existing.url}/crash", timeout=PATIENCE).status_code == 500
    existing.server.stop()
    log = existing.server.log
    assert log.count("INFO automoderate.app: listening on http://") == 1
    assert log.count("INFO automoderate.directory: visitor is anonymous: no cookie") == 1
    assert log.count("RuntimeError: a page of the application fails") == (configured != "off")
    assert re.findall("THEIRS.* automoderate", log) == []
    if configured == "off":
        assert "the application is configured" not in log
    elif configured:
        assert log.count("THEIRS WARNING app the application is configured\n") == 1
        assert log.count("THEIRS INFO app somebody logged in\n") == 1
        assert log.count("THEIRS ERROR app Exception on /crash [POST]\n") == 1
    else:
        assert log.count("the application is configured\n") == 1, "Python's last resort"
        assert "somebody logged in" not in log
