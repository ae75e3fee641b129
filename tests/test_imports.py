"""The import rules of the house: what is pure stays pure, and nothing imports an adapter by accident."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "automoderate"

IMPURE = {
    "asyncio",
    "trio",
    "anyio",
    "eventlet",
    "socket",
    "select",
    "selectors",
    "threading",
    "time",
    "random",
    "secrets",
}
RUNTIMES = {"asyncio", "trio", "anyio", "eventlet", "greenlet", "uvloop"}
PURE_STDLIB = {
    "__future__",
    "collections",
    "enum",
    "functools",
    "heapq",
    "itertools",
    "json",
    "math",
    "re",
    "types",
    "typing",
}

ADAPTERS = tuple(
    f"automoderate.adapters.{path.stem}"
    for path in (PACKAGE / "adapters").glob("*.py")
    if not path.stem.startswith("_")
)


def modules(*parts: str) -> list[Path]:
    return sorted(
        path
        for part in parts
        for path in ([PACKAGE / part] if part.endswith(".py") else (PACKAGE / part).rglob("*.py"))
    )


def imports(path: Path) -> Iterator[str]:
    """Every module a file imports, wherever in the file, by its full name."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide what they import"
            assert node.module is not None
            yield node.module
            # `from automoderate import adapters` imports a module too.
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def top(name: str) -> str:
    return name.partition(".")[0]


def within(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(package + ".") for package in packages)


def named(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


@pytest.mark.parametrize("path", modules("core", "protocol", "server.py"), ids=named)
def test_the_pure_layers_import_no_runtime_clock_or_chance(path: Path) -> None:
    assert not {top(name) for name in imports(path)} & IMPURE


@pytest.mark.parametrize("path", modules("core"), ids=named)
def test_core_imports_the_standard_librarys_pure_parts_and_attrs(path: Path) -> None:
    assert {top(name) for name in imports(path)} <= PURE_STDLIB | {"attrs"}


@pytest.mark.parametrize("path", modules("protocol"), ids=named)
def test_protocol_knows_nothing_of_the_rest(path: Path) -> None:
    ours = [name for name in imports(path) if within(name, "automoderate")]
    assert all(within(name, "automoderate.protocol") for name in ours), ours


def test_server_imports_core_and_protocol() -> None:
    ours = [name for name in imports(PACKAGE / "server.py") if within(name, "automoderate")]
    assert all(within(name, "automoderate.core", "automoderate.protocol") for name in ours), ours


@pytest.mark.parametrize("path", modules("adapters"), ids=named)
def test_an_adapter_imports_the_server_and_its_own_runtime(path: Path) -> None:
    found = list(imports(path))
    ours = [name for name in found if within(name, "automoderate")]
    allowed = ["automoderate.server", "automoderate.protocol", "automoderate.adapters"]
    if path.name == "socketio.py":  # joins the hub to a library's server, where the others drive ours
        allowed.append("automoderate.core")
    assert all(within(name, *allowed) for name in ours), ours
    own = {
        "asyncio.py": {"asyncio", "uvloop"},
        "trio.py": {"trio", "anyio"},
        "eventlet.py": {"eventlet", "greenlet"},
        "socketio.py": {"asyncio"},
    }.get(path.name, set())
    assert {top(name) for name in found} & RUNTIMES <= own
    assert not {name for name in ours if within(name, *ADAPTERS)}, "one adapter imports another"


@pytest.mark.parametrize("path", [path for path in modules("") if "adapters" not in path.parts], ids=named)
def test_nothing_imports_an_adapter_but_the_place_that_chooses_one_by_name(path: Path) -> None:
    assert not {name for name in imports(path) if within(name, *ADAPTERS)}


def loaded_by(statement: str) -> set[str]:
    """The modules a fresh process has loaded after a statement."""
    program = f"{statement}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(json.loads(run.stdout))


def test_importing_core_loads_nothing_impure_but_what_attrs_loads() -> None:
    added = loaded_by("import automoderate.core.hub") - loaded_by("import attrs")
    assert not {top(name) for name in added} & IMPURE


@pytest.mark.parametrize(
    "module",
    [
        "automoderate", "automoderate.adapters", "automoderate.server", "automoderate.testing",
        "automoderate.notifier",
    ],
)  # fmt: skip
def test_importing_the_package_loads_no_runtime_of_an_extra(module: str) -> None:
    assert not {top(name) for name in loaded_by(f"import {module}")} & {"trio", "anyio", "eventlet", "uvloop"}


def test_choosing_an_adapter_loads_just_that_one() -> None:
    loaded = loaded_by("from automoderate import adapters; adapters.load('asyncio')")
    assert "automoderate.adapters.asyncio" in loaded
    assert not {top(name) for name in loaded} & {"trio", "eventlet"}


SENDING = """
import asyncio
from concurrent.futures import Future
from types import SimpleNamespace
from automoderate.notifier import AsyncWebSocketNotifier
done = Future()
done.set_result("1-0")
here = SimpleNamespace(publish=lambda *_: done)
async def main():
    async with AsyncWebSocketNotifier(realtime=here) as notifier:
        assert await notifier.send_stats_update("p", {})
asyncio.run(main())
"""


def test_an_async_notifier_on_asyncio_loads_no_other_runtime() -> None:
    loaded = loaded_by(SENDING)
    assert "anyio" in loaded
    assert not {top(name) for name in loaded} & {"trio", "eventlet", "uvloop"}
