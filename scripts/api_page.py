"""Write docs/api.md: the names that other programs may import, each with the first sentence of its documentation.

``python scripts/api_page.py`` writes the page, ``--check`` only says (exit status 1) whether it is out of date. A name
that comes, goes or changes its meaning is seen in the page's history.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).parent.parent
TARGET = ROOT / "docs" / "api.md"

PUBLIC = {
    "Serve": ("automoderate", "automoderate.app", "automoderate.settings", "automoderate.realtime"),
    "Generate code": ("automoderate.contract",),
    "Publish": ("automoderate.notifier", "automoderate.notifier.http", "automoderate.update_payloads"),
    "Test": ("automoderate.testing",),
    "Attach to a server that runs already": (
        "automoderate.integrations.socketio", "automoderate.integrations.flask_socketio",
    ),
    "Choose a runtime, or write one": (
        "automoderate.adapters", "automoderate.adapters.asyncio", "automoderate.adapters.trio",
        "automoderate.adapters.eventlet", "automoderate.adapters.runtime",
    ),
    "Build on the layers": (
        "automoderate.core.hub", "automoderate.server", "automoderate.server.interfaces", "automoderate.server.tracing",
        "automoderate.opentelemetry", "automoderate.protocol",
        "automoderate.protocol.events", "automoderate.protocol.outputs", "automoderate.backplane.memory",
        "automoderate.backplane.redis", "automoderate.dashboard", "automoderate.directory.access",
        "automoderate.directory.accounts", "automoderate.directory.database", "automoderate.directory.sessions",
    ),
}  # fmt: skip
"""The modules whose names are kept, by what one imports them for."""

INTRODUCTION = """\
These modules are public: their names and what they mean change with a new minor version only, and the
[changelog](../CHANGELOG.md) says so. Everything else in the package is internal and may change at any time: other
modules, names that begin with `_`, and what an object has beside the methods and attributes that its documentation
names. So are the HTML of the dashboard and the texts of log lines. Public as well are the
[events and errors](client-reference.md) of clients, the HTTP API, the options and exit statuses of the command line,
the [metrics](operating.md#metrics), and the events and fields of the [log as JSON](operating.md#the-log).

`python scripts/api_page.py` writes this page from the modules; a test fails while page and package differ."""


def exported(module: ModuleType) -> list[str]:
    """The public names of a module: ``__all__``, or whatever it defines without an underscore in front."""
    names: list[str] | None = getattr(module, "__all__", None)
    if names is not None:
        return sorted(names, key=str.casefold)
    return sorted((name for name in definitions(module) if not name.startswith("_")), key=str.casefold)


def definitions(module: ModuleType) -> dict[str, str]:
    """What a module defines at its top level, and the string that stands behind a constant as its documentation."""
    assert module.__file__ is not None
    found: dict[str, str] = {}
    body = ast.parse(Path(module.__file__).read_text("utf-8")).body
    for node, following in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            found[node.name] = ""
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            is_variable = isinstance(node.value, ast.Call) and ast.unparse(node.value.func) in ("TypeVar", "ParamSpec")
            is_log = isinstance(node.value, ast.Call) and ast.unparse(node.value.func) == "logging.getLogger"
            if isinstance(target, ast.Name) and not is_variable and not is_log:
                text = ast.get_docstring(ast.Module([following], [])) if isinstance(following, ast.Expr) else None
                found[target.id] = text or ""
    return found


def first_sentence(text: str) -> str:
    """The beginning of a documentation up to its first full stop, on one line and without markup."""
    line = " ".join(text.split("\n\n")[0].split())
    line = re.sub(r":\w+:`~?([^`]*)`", r"`\1`", line).replace("``", "`").replace("|", "\\|")
    return re.split(r"(?<=[.!?])\s", line, maxsplit=1)[0].rstrip(".:")


def defining(module: ModuleType, name: str) -> ModuleType:
    """The module that a name was imported from, by whatever way round."""
    assert module.__file__ is not None
    for node in ast.walk(ast.parse(Path(module.__file__).read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and name in {alias.asname or alias.name for alias in node.names}:
            return defining(importlib.import_module(str(node.module)), name)
    return module


def about(module: ModuleType, name: str) -> str:
    """What is said of one name where it is defined."""
    thing: Any = getattr(module, name)
    if inspect.isclass(thing) or inspect.isroutine(thing):
        return first_sentence(thing.__doc__ or "")
    return first_sentence(definitions(defining(module, name)).get(name, ""))


def render() -> str:
    """The whole page."""
    parts = ["# The public API", INTRODUCTION]
    for heading, modules in PUBLIC.items():
        parts.append(f"## {heading}")
        for name in modules:
            module = importlib.import_module(name)
            rows = [f"| `{each}` | {about(module, each)} |" for each in exported(module)]
            parts += [
                f"### `{name}`",
                f"{first_sentence(module.__doc__ or '')}.",
                "\n".join(["| | |", "|---|---|", *rows]),
            ]
    return "\n\n".join(parts) + "\n"


def main() -> int:
    """Write the page, or check it; the exit status."""
    text = render()
    if "--check" not in sys.argv[1:]:
        TARGET.write_text(text, "utf-8")
        return 0
    return 0 if TARGET.exists() and TARGET.read_text("utf-8") == text else 1


if __name__ == "__main__":
    sys.exit(main())
