"""What the documentation shows is what is there."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from automoderate.cli import cli

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    """The fenced code blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize(("language", "example"), [("js", "client.mjs"), ("python", "client.py")])
def test_the_clients_in_the_readme_are_the_examples(language: str, example: str) -> None:
    assert (ROOT / "examples" / example).read_text() in blocks(README, language)


def test_the_test_in_the_readme_passes() -> None:
    (source,) = [block for block in blocks(README, "python") if "def test_" in block]
    namespace: dict[str, object] = {}
    exec(compile(source, "README.md", "exec"), namespace)
    tests = [value for name, value in namespace.items() if name.startswith("test_") and callable(value)]
    assert len(tests) == 1
    tests[0]()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_python_in_the_docs_compiles(page: Path) -> None:
    for block in blocks(page, "python"):
        compile(block, name_of(page), "exec")


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), f"{name_of(page)} links to {target}"


def commands(page: Path) -> Iterator[list[str]]:
    """The `automoderate …` command lines that the page shows, in blocks and in running text."""
    text = page.read_text()
    for line in re.findall(r"(?:^|[`$] ?|(?:\w+=\S+ )+)(automoderate [a-z][^`\n]*)", text, re.MULTILINE):
        yield shlex.split(line.split("  #")[0].split(" &&")[0].rstrip("\\"))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_and_flags_exist(page: Path) -> None:
    for words in commands(page):
        command: click.Command = cli
        context = click.Context(cli)
        flags = [word.split("=")[0] for word in words if word.startswith("--")]
        for word in words[1:]:
            found = command.get_command(context, word) if isinstance(command, click.Group) else None
            if found is not None:
                command = found
        assert command is not cli, words
        known = {flag for option in command.params for flag in option.opts + option.secondary_opts} | {"--help"}
        assert set(flags) <= known, f"{name_of(page)}: {words} has flags that are not there"
