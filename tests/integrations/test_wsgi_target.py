"""Naming an application to mount: what is understood, and one line for what is not."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import flask
import pytest
from socketio import Server, WSGIApp
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.middleware.shared_data import SharedDataMiddleware

from automoderate.integrations.wsgi_target import CannotLoad, Target, flask_within, load_application, parse_target

SOURCE = """
import sys

def app(environ, start_response):
    return [b"the application"]

class Site:
    def __call__(self, environ, start_response):
        return [b"an object"]

    def make(self, name="nobody", *, number=0):
        return lambda environ, start_response: [name.encode(), str(number).encode()]

site = Site()
text = "no application"

class Asynchronous:
    async def __call__(self, scope, receive, send): ...

async def function(scope, receive, send): ...

asgi = Asynchronous()

def factory(name="default"):
    return site.make(name)

def failing():
    raise LookupError("two\\nlines")

def leaving():
    sys.exit("set THE_OPTION")
"""


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("run:app", Target("run", ("app",))),
        ("package.module:site.app", Target("package.module", ("site", "app"))),
        ("app:create_app()", Target("app", ("create_app",), ((), {}))),
        ('app:create_app("production")', Target("app", ("create_app",), (("production",), {}))),
        ("app:create_app( 'a:b', debug=False, sizes=[1, -2], more={'x': None})",
         Target("app", ("create_app",), (("a:b",), {"debug": False, "sizes": [1, -2], "more": {"x": None}}))),
        ("app:factory.create('x')", Target("app", ("factory", "create"), (("x",), {}))),
    ],
)  # fmt: skip
def test_what_names_an_application(text: str, target: Target) -> None:
    assert parse_target(text) == target


@pytest.mark.parametrize(
    "text",
    ["module", ":app", "module:", "module.:app", "mod ule:app", "module:app; import os", "module:f(1", "module:f(x)",
     "module:f(open('x'))", "module:f(*[1])", "module:f(**{'a': 1})", "module:f()()", "module:f().app", "module:'app'",
     "module:a[0]", "module:lambda: 1", "module:1", "module:f(1+)", "module:" + "(" * 500, "a/b:app", "1:app"],
)  # fmt: skip
def test_what_names_none(text: str) -> None:
    with pytest.raises(ValueError, match="no "):
        parse_target(text)


@pytest.fixture
def folder(empty_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working directory, with a module ``some_site``; it is where modules are found."""
    (empty_folder / "some_site.py").write_text(SOURCE)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    yield empty_folder
    sys.modules.pop("some_site", None)


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("some_site:app", [b"the application"]),
        ("some_site:site", [b"an object"]),
        ("some_site:factory()", [b"default", b"0"]),
        ("some_site:factory('staging')", [b"staging", b"0"]),
        ("some_site:site.make('x', number=3)", [b"x", b"3"]),
    ],
)
def test_an_application_is_found_in_the_working_directory(name: str, answer: list[bytes]) -> None:
    application = load_application(name)
    assert application({}, lambda _status, _headers, _failure=None: lambda _: None) == answer


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("no_site:app", "cannot load the application no_site:app: ModuleNotFoundError: No module named 'no_site'"),
        ("some_site:missing", "cannot load the application some_site:missing: AttributeError: "),
        ("some_site:failing()", "cannot load the application some_site:failing(): LookupError: two lines ("),
        ("some_site:leaving()", "cannot load the application some_site:leaving(): SystemExit: set THE_OPTION ("),
        ("some_site:factory(1, 2)", "cannot load the application some_site:factory(1, 2): TypeError: factory() takes"),
        ("flask:current_app", "cannot load the application flask:current_app: RuntimeError: Working outside of"),
        ("some_site:text", "cannot serve some_site:text: it is no WSGI application but a str"),
        ("some_site:factory", "cannot serve some_site:factory: it takes no WSGI request; a factory is called, as in "),
        ("some_site:asgi", "cannot serve some_site:asgi: it is an ASGI application, and a WSGI application is needed"),
        ("some_site:function", "cannot serve some_site:function: it is an ASGI application, and"),
        ("some_site:Asynchronous()", "cannot serve some_site:Asynchronous(): it is an ASGI application, and"),
        ("some_site.py:app", "cannot load the application some_site.py:app: did you mean some_site:app?"),
    ],
)
def test_what_is_no_application_is_one_line(name: str, said: str) -> None:
    with pytest.raises(CannotLoad) as caught:
        load_application(name)
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)


def test_what_has_no_signature_may_be_an_application(folder: Path) -> None:
    (folder / "some_site.py").write_text("app = dict\n")
    found: object = load_application("some_site:app")
    assert found is dict


def test_a_flask_application_is_found_within_middleware() -> None:
    application = flask.Flask("somebody elses")

    class WhiteNoise:
        def __init__(self, application: Any) -> None:
            self.application = application

        def __call__(self, environ: Any, start_response: Any) -> Any:
            return self.application(environ, start_response)

    @functools.wraps(application)
    def decorated(environ: Any, start_response: Any) -> Any:
        return application(environ, start_response)

    for middleware in (
        application, application.wsgi_app, ProxyFix(application), ProxyFix(application.wsgi_app),
        DispatcherMiddleware(ProxyFix(application), {"/other": flask.Flask("another")}),
        SharedDataMiddleware(application, {}), WSGIApp(Server(async_mode="threading"), application),
        WhiteNoise(ProxyFix(application)), decorated,
    ):  # fmt: skip
        assert flask_within(middleware) is application
    assert flask_within(None) is None
    assert flask_within(ProxyFix(lambda *_: [])) is None
    itself = ProxyFix(application)
    itself.app = itself
    assert flask_within(itself) is None
