"""The import rules of the house: what is pure stays pure, and nothing imports an adapter by accident."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from automoderate import adapters

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

ADAPTERS = tuple(f"automoderate.adapters.{name}" for name in adapters.names())


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


@pytest.mark.parametrize("path", modules("core", "protocol", "server"), ids=named)
def test_the_pure_layers_import_no_runtime_clock_or_chance(path: Path) -> None:
    assert not {top(name) for name in imports(path)} & IMPURE


@pytest.mark.parametrize("path", modules("core"), ids=named)
def test_core_imports_the_standard_librarys_pure_parts_and_attrs(path: Path) -> None:
    others = [name for name in imports(path) if not within(name, "automoderate.core")]
    assert {top(name) for name in others} <= PURE_STDLIB | {"attrs"}


@pytest.mark.parametrize("path", modules("protocol"), ids=named)
def test_protocol_knows_nothing_of_the_rest(path: Path) -> None:
    ours = [name for name in imports(path) if within(name, "automoderate")]
    assert all(within(name, "automoderate.protocol") for name in ours), ours


@pytest.mark.parametrize("path", modules("server"), ids=named)
def test_server_imports_core_and_protocol(path: Path) -> None:
    ours = [name for name in imports(path) if within(name, "automoderate")]
    assert all(within(name, "automoderate.core", "automoderate.protocol", "automoderate.server") for name in ours), ours


@pytest.mark.parametrize("path", modules("adapters"), ids=named)
def test_an_adapter_imports_the_protocol_and_its_own_runtime(path: Path) -> None:
    found = list(imports(path))
    ours = [name for name in found if within(name, "automoderate")]
    assert all(
        within(
            name, "automoderate.protocol", "automoderate.adapters", "automoderate._threads", "automoderate._listening"
        )
        for name in ours
    )
    own = {
        "asyncio.py": {"asyncio", "uvloop"},
        "trio.py": {"trio"},
        "eventlet.py": {"eventlet"},
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


# The whole house ----------------------------------------------------------------------------------------------


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in modules("")}


def imported(path: Path) -> set[str]:
    """The files of ours that a file imports: for ``from package import name`` the module of that name, where it is one,
    else the package. A text such as ``"package.module:name"`` imports, too."""
    found = set[str]()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and re.fullmatch(r"automoderate\.[\w.]+:\w+", str(node.value)):
            found.add(str(node.value).partition(":")[0])
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            full = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= full & set(MODULES)
            if full - set(MODULES):
                found.add(str(node.module))
    return found & set(MODULES)


def test_no_two_files_import_each_other_by_whatever_way_round() -> None:
    graph = {name: imported(path) - {name} for name, path in MODULES.items()}
    cycles = []
    for name in graph:
        reached, todo = set[str](), list(graph[name])
        while todo:
            each = todo.pop()
            if each not in reached:
                reached.add(each)
                todo.extend(graph[each])
        if name in reached:
            cycles.append(name)
    assert not cycles, f"these files are on a circle: {cycles}"


LAYERS = (
    {"core", "protocol", "contract", "_threads", "_logs"},
    {"server", "directory", "update_payloads", "_listening"},
    {"adapters", "backplane", "realtime", "metrics", "opentelemetry", "control"},
    {"notifier", "dashboard", "integrations", "testing"},
    {"settings"},
    {"app"},
    {"automoderate", "supervisor"},
    {"cli"},
    {"__main__"},
)
"""The packages and single files of the house, from the lowest layer up; ``automoderate`` is its ``__init__.py``."""
LEVEL = {part: level for level, parts in enumerate(LAYERS) for part in parts}


def part_of(name: str) -> str:
    """What a module belongs to: the package or file at the top of ours."""
    return [*name.split("."), name][1]


@pytest.mark.parametrize("path", modules(""), ids=named)
def test_a_layer_imports_only_what_is_below_it(path: Path) -> None:
    own = part_of(module_name(path))
    upward = [name for name in imported(path) if part_of(name) != own and LEVEL[part_of(name)] >= LEVEL[own]]
    assert not upward


IMPORTED_BY_NAME = {
    "adapters/__init__.py": "an adapter is chosen by its name",
    "adapters/asyncio.py": "uvloop, where it is installed",
    "cli/__init__.py": "a command is loaded when it is called",
    "integrations/wsgi_target.py": "the application that is mounted",
    "opentelemetry.py": "the exporter that the environment names",
}
"""Who may import what no syntax tree shows, each with the reason."""


def imports_by_name(path: Path) -> bool:
    words = {"import_module", "__import__"}
    for node in ast.walk(ast.parse(path.read_text())):
        name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else None
        names = [alias.name for alias in node.names] if isinstance(node, ast.ImportFrom) else [name]
        if words & set(names):
            return True
    return False


def test_each_part_of_the_house_is_in_a_layer() -> None:
    assert {part_of(name) for name in MODULES} == set(LEVEL)


def test_few_files_import_what_no_syntax_tree_shows() -> None:
    assert {named(path) for path in modules("") if imports_by_name(path)} == set(IMPORTED_BY_NAME)


def private_imports(path: Path) -> Iterator[str]:
    """What a file imports of ours that is private to another package or file."""
    package = module_name(path) if path.name == "__init__.py" else module_name(path).rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            full = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            full = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in full:
            parts = name.split(".")
            owners = [
                ".".join(parts[:at])
                for at, part in enumerate(parts)
                if part.startswith("_") and part not in ("__version__", "__main__")
            ]
            if within(name, "automoderate") and not all(within(package, owner) for owner in owners):
                yield name


OUTSIDE = [
    path
    for folder in ("examples", "benchmarks", "scripts")
    for path in sorted((PACKAGE.parent / folder).rglob("*.py"))
    if "node_modules" not in path.parts
]


@pytest.mark.parametrize("path", modules("") + OUTSIDE, ids=lambda path: str(path.relative_to(PACKAGE.parent)))
def test_what_begins_with_an_underscore_is_imported_inside_its_own_package_only(path: Path) -> None:
    assert not list(private_imports(path))


NAMED_TWICE: dict[str, str] = {}
"""Class names that stand for more than one thing, each with the reason why it should."""


def test_no_class_name_stands_for_two_things() -> None:
    places: dict[str, list[str]] = {}
    for name, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name.lstrip("_"), []).append(name)
    twice = {name: found for name, found in places.items() if len(found) > 1 and name not in NAMED_TWICE}
    assert not twice
    assert set(NAMED_TWICE) <= {name for name, found in places.items() if len(found) > 1}, (
        "the list has a name too many"
    )


LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}
FIELDS = {"event", "sid", "user", "project", "reason", "address", "worker"}


def log_calls(path: Path) -> Iterator[ast.Call]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LEVELS:
            logger = ast.unparse(node.func.value).rpartition(".")[2].strip("_").lower()
            if logger in ("log", "logger", "logging"):
                yield node


@pytest.mark.parametrize("path", [path for path in modules("") if any(log_calls(path))], ids=named)
def test_what_is_logged_names_its_event_and_has_no_field_for_secrets_or_content(path: Path) -> None:
    """``extra={"event": "in_words", "user": …}``: what a program that reads the log looks for."""
    constants = {
        target.id: node.value
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for call in log_calls(path):
        extra = next((keyword.value for keyword in call.keywords if keyword.arg == "extra"), None)
        extra = constants.get(extra.id) if isinstance(extra, ast.Name) else extra
        assert isinstance(extra, ast.Dict), f"{path}:{call.lineno} has no extra= with its event"
        names = {ast.literal_eval(key): value for key, value in zip(extra.keys, extra.values, strict=True) if key}
        assert re.fullmatch("'[a-z][a-z_]+'", ast.unparse(names["event"])), f"{path}:{call.lineno}"
        assert names.keys() <= FIELDS, f"{path}:{call.lineno}"


def test_an_adapter_is_one_page() -> None:
    """What grows there belongs to the runtime, where every adapter has it."""
    for name in adapters.names():
        assert len((PACKAGE / "adapters" / f"{name}.py").read_text().splitlines()) <= 100, name
