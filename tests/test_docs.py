"""What the documentation shows is what is there."""

from __future__ import annotations

import importlib
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import api_page
import click
import pytest
import yaml

from automoderate.cli import cli
from kits import ROOT

README = ROOT / "README.md"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md")), ROOT / "tests" / "README.md"]


def blocks(page: Path, language: str) -> list[str]:
    """The fenced code blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize(
    ("language", "example"), [("js", "client.mjs"), ("python", "client.py"), ("python", "publish.py")]
)
def test_the_examples_in_the_readme_are_the_examples(language: str, example: str) -> None:
    assert (ROOT / "examples" / example).read_text() in blocks(README, language)


def test_the_example_in_the_page_about_publishing_is_the_example() -> None:
    assert (ROOT / "examples" / "read_history.py").read_text() in blocks(ROOT / "docs" / "publishing.md", "python")


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


# The outer habits ---------------------------------------------------------------------------------------------


def test_the_page_of_the_public_api_is_up_to_date() -> None:
    done = subprocess.run([sys.executable, "scripts/api_page.py", "--check"], cwd=ROOT, check=False)
    assert done.returncode == 0, "run: python scripts/api_page.py"


@pytest.mark.parametrize("module", [name for names in api_page.PUBLIC.values() for name in names])
def test_every_public_name_says_what_it_is_for(module: str) -> None:
    found = importlib.import_module(module)
    silent = [name for name in api_page.exported(found) if not api_page.about(found, name)]
    assert not silent


def test_each_promise_of_the_security_policy_names_a_test_that_is_there() -> None:
    text = (ROOT / "SECURITY.md").read_text()
    rows = [line for line in text.partition("## What is promised")[2].partition("\n## ")[0].splitlines() if "|" in line]
    assert len(rows) > 12
    for row in rows[2:]:
        named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", row)
        assert named, row
        for file, test in named:
            assert re.search(rf"^ *(async )?def {test}\(", (ROOT / file).read_text(), re.MULTILINE), f"{file}::{test}"


def test_the_changelog_keeps_its_form() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    versions = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert versions[0] == "[Unreleased]"
    assert all(re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", version) for version in versions[1:])
    assert set(re.findall(r"^### (.+)$", text, re.MULTILINE)) <= {
        "Added", "Changed", "Deprecated", "Removed", "Fixed", "Security",
    }  # fmt: skip


def test_the_workflow_runs_what_lands_on_every_python_that_is_promised() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    promised = [text.rpartition(" ")[2] for text in project["classifiers"] if re.search(r":: 3\.\d+$", text)]
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    everything = workflow["jobs"]["everything"]
    assert everything["strategy"]["matrix"]["python"] == promised
    assert project["requires-python"] == f">={promised[0]}"
    assert [step["run"] for step in everything["steps"] if "run" in step][-1] == "bash .ci/run"


def test_the_hooks_run_what_is_there() -> None:
    (repo,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    for hook in repo["hooks"]:
        for path in re.findall(r"(?:scripts|tests)/[\w.]+", hook["entry"]):
            assert (ROOT / path).exists(), path


def test_targets_of_make_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        for target in re.findall(r"(?:^|`|\$ )make ([a-z-]+)", page.read_text(), re.MULTILINE):
            assert target in targets, f"{name_of(page)}: make {target}"
