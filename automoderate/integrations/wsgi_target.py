"""Which WSGI application to mount, as gunicorn names one: ``module:application`` or ``module:factory("argument")``."""

from __future__ import annotations

import ast
import importlib
import inspect
import logging
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from attrs import frozen
from flask import Flask

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

log = logging.getLogger("automoderate.app")

MOST_MIDDLEWARE = 10
"""Layers of middleware that are looked through for an application."""
_WITHIN = ("app", "wsgi_app", "application", "_app", "wrap_app", "__wrapped__", "__self__")
"""Where middleware keeps the application that it is around: Werkzeug's, python-socketio's, WhiteNoise, a decorator,
a method of the application itself."""


class CannotLoad(RuntimeError):
    """The application cannot be imported or made, or is none; the message is one line."""


@frozen
class Target:
    """Where an application is: an attribute of a module, or what a function there returns."""

    module: str
    path: tuple[str, ...]
    call: tuple[tuple[Any, ...], Mapping[str, Any]] | None = None
    """The arguments of the factory; None where the attribute is the application itself."""


def parse_target(text: str) -> Target:
    """Take ``module:application`` or ``module:factory("argument", name=1)`` apart. Arguments are literals.

    Raises ValueError for anything else.
    """
    module, _, expression = text.partition(":")
    try:
        node = ast.parse(expression.strip(), mode="eval").body
        if not isinstance(node, ast.Call):
            target = Target(module, _path(node))
        else:
            arguments = tuple(ast.literal_eval(argument) for argument in node.args)
            named = {keyword.arg or "**": ast.literal_eval(keyword.value) for keyword in node.keywords}
            if "**" in named:
                raise ValueError("no literal")
            target = Target(module, _path(node.func), (arguments, named))
    except (SyntaxError, TypeError, ValueError, MemoryError, RecursionError) as error:
        raise ValueError(f"no application: {expression}") from error
    if not all(part.isidentifier() for part in module.split(".")):
        raise ValueError(f"no module: {module}")
    return target


def _path(node: ast.expr) -> tuple[str, ...]:
    if isinstance(node, ast.Attribute):
        return (*_path(node.value), node.attr)
    if isinstance(node, ast.Name):
        return (node.id,)
    raise ValueError(f"no name: {ast.unparse(node)}")


def load_application(name: str) -> WSGIApplication:
    """Import the application, or have its factory make it. Raises :exc:`CannotLoad`."""
    target = parse_target(name)
    look_in_working_directory()
    try:
        found: Any = importlib.import_module(target.module)
        for attribute in target.path:
            found = getattr(found, attribute)
        if target.call is not None:
            arguments, named = target.call
            found = found(*arguments, **named)
        fits = target.call is not None or not callable(found) or _takes_a_request(found)  # proxies may raise anything
    except (Exception, SystemExit) as error:
        log.debug("cannot load %s", name, exc_info=True, extra={"event": "application_not_loaded"})
        if target.module.endswith(".py") and isinstance(error, ModuleNotFoundError):
            meant = f"{target.module.removesuffix('.py')}:{name.partition(':')[2]}"
            raise CannotLoad(f"cannot load the application {name}: did you mean {meant}?") from error
        cause = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise CannotLoad(f"cannot load the application {name}: {cause} (--log-level debug shows where)") from error
    if not callable(found):
        raise CannotLoad(f"cannot serve {name}: it is no WSGI application but a {type(found).__name__}")
    if inspect.iscoroutinefunction(found) or inspect.iscoroutinefunction(getattr(found, "__call__", None)):  # noqa: B004
        raise CannotLoad(f"cannot serve {name}: it is an ASGI application, and a WSGI application is needed")
    if not fits:
        raise CannotLoad(f"cannot serve {name}: it takes no WSGI request; a factory is called, as in {name}()")
    application: WSGIApplication = found
    return application


def look_in_working_directory() -> None:
    """Let Python find modules in the working directory too, as every server of WSGI applications does."""
    if "" not in sys.path:
        sys.path.insert(0, "")


def flask_within(application: WSGIApplication | None) -> Flask | None:
    """The Flask application that this one is, or that it is middleware of; None where there is none.

    Middleware keeps what it is around as Werkzeug's does (``ProxyFix(app)``), or under another of the usual names.
    """
    found: Any = application
    for _ in range(MOST_MIDDLEWARE):
        if found is None or isinstance(found, Flask):
            return found
        within = (getattr(found, name, None) for name in _WITHIN)
        found = next((each for each in within if callable(each)), None)
    return None


def _takes_a_request(application: Any) -> bool:
    """Whether it could be called with an environment and a function; True where that cannot be known."""
    try:
        inspect.signature(application).bind({}, None)
    except TypeError:
        return False
    except ValueError:
        return True
    return True
