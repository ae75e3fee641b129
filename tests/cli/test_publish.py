"""The command that publishes one update: what it sends, and one line for every way it can go wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from automoderate.cli.publish import publish


@pytest.fixture
def run(scripted_api: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("AUTOMODERATE_URL", scripted_api.url)
    monkeypatch.setenv("AUTOMODERATE_API_KEY", "am_env")

    def run(*arguments: str, stdin: str | bytes | None = None) -> Result:
        return CliRunner().invoke(publish, list(arguments), input=stdin)

    return run


def sent(scripted_api: Any) -> tuple[str, dict[str, Any]]:
    (posted,) = scripted_api.requests
    assert posted.path == "/api/projects/p/events"
    return posted.body["event"], posted.body["data"]


def failed(result: Result, exit_code: int, message: str) -> None:
    assert result.exit_code == exit_code, result.output
    assert result.stdout == ""
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_decision(run: Any, scripted_api: Any) -> None:
    result = run("p", "--status", "rejected", "--text", "x" * 120, "--content-id", "c-1", "--type", "comment")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "1-1\n", "")
    event, data = sent(scripted_api)
    assert event == "moderation_update"
    assert data.pop("timestamp")
    assert data == {
        "content_id": "c-1",
        "project_id": "p",
        "status": "rejected",
        "content_type": "comment",
        "content_preview": "x" * 100 + "...",
        "meta_data": None,
        "results_count": 1,
        "processing_time": 0.0,
        "moderator_type": "manual",
        "moderator_name": "Manual",
        "rule_name": None,
    }
    assert scripted_api.requests[0].api_key == "am_env"


def test_defaults(run: Any, scripted_api: Any) -> None:
    assert run("p", "--api-key", "am_other").exit_code == 0
    event, data = sent(scripted_api)
    assert (event, data["status"], data["content_type"], data["content_preview"]) == (
        "moderation_update",
        "approved",
        "text",
        "",
    )
    assert len(data["content_id"]) == 36
    assert scripted_api.requests[0].api_key == "am_other"


def test_content_received(run: Any, scripted_api: Any) -> None:
    assert run("p", "--event", "content_received", "--text", "Hello").exit_code == 0
    event, data = sent(scripted_api)
    assert (event, data["status"], data["moderator_type"]) == ("content_received", "pending", "pending")


def test_data_adds_to_the_defaults_and_options_win(run: Any, scripted_api: Any) -> None:
    data = {"status": "flagged", "rule_name": "Spam", "extra": 1, "content_preview": "no", "content_id": "data"}
    assert run("p", "--data", json.dumps(data), "--text", "yes", "--content-id", "option").exit_code == 0
    _, published = sent(scripted_api)
    assert published["status"] == "flagged"
    assert published["rule_name"] == "Spam"
    assert published["extra"] == 1
    assert published["content_preview"] == "yes"
    assert published["content_id"] == "option"


@pytest.mark.parametrize("source", ["argument", "file", "stdin"])
def test_where_data_comes_from(run: Any, scripted_api: Any, tmp_path: Path, source: str) -> None:
    text = '{"total": 1, "who": "é"}'
    path = tmp_path / "stats.json"
    path.write_text(text, "utf-8")
    data = {"argument": text, "file": f"@{path}", "stdin": "-"}[source]
    result = run("p", "--event", "stats_update", "--data", data, stdin=text if source == "stdin" else None)
    assert result.exit_code == 0, result.output
    assert sent(scripted_api) == ("stats_update", {"total": 1, "who": "é"})


def test_bad_data(run: Any, scripted_api: Any, tmp_path: Path) -> None:
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff")
    failed(run("p", "--data", "{"), 2, "--data is not JSON")
    failed(run("p", "--data", "[" * 100_000), 2, "--data is not JSON: it is nested too deeply")
    failed(run("p", "--data", "[1]"), 2, "--data must be a JSON object")
    failed(run("p", "--data", "@/does/not/exist"), 2, "cannot read /does/not/exist: No such file or directory")
    failed(run("p", "--data", f"@{binary}"), 2, "is not UTF-8")
    failed(run("p", "--data", "-", stdin="nonsense"), 2, "standard input is not JSON")
    failed(run("p", "--data", '{"status": "spam"}'), 2, "status must be one of")
    failed(run("p", "--data", '{"project_id": "q"}'), 2, "project_id is another project's")
    failed(run("p", "--event", "stats_update"), 2, "stats_update needs --data")
    failed(run("p", "--event", "stats_update", "--data", '{"rate": NaN}'), 2, "data is not JSON")
    failed(run("p", "--event", "rule_update", "--data", "{}", "--status", "approved"), 2, "do not go with rule_update")
    failed(run(""), 2, "the project id is empty")
    failed(run("p\udcff"), 2, "the project id is no text")  # what a shell gives that is not UTF-8
    assert scripted_api.requests == []


def test_without_a_key(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AUTOMODERATE_API_KEY")
    failed(run("p"), 2, "an API key of the project is needed")
    failed(run("p", "--api-key", "am_\n"), 2, "printable ASCII")


def test_wrong_options(run: Any, scripted_api: Any) -> None:
    assert run("p", "--event", "joined_project").exit_code == 2
    assert run("p", "--status", "spam").exit_code == 2
    assert run().exit_code == 2
    assert scripted_api.requests == []


def test_an_address_that_is_none(run: Any) -> None:
    failed(run("p", "--url", "localhost:6217"), 2, "should look like http://127.0.0.1:6217")


def test_nobody_there(run: Any, closed_port: int) -> None:
    failed(run("p", "--url", f"http://127.0.0.1:{closed_port}"), 3, "Connection refused; is the server running")


@pytest.mark.parametrize("status", [401, 403, 413, 503])
def test_a_refusal(run: Any, scripted_api: Any, status: int) -> None:
    scripted_api.answers = [(status, {"error": {"message": "the reason", "code": "x"}})]
    failed(run("p"), 1, f"refused ({status}): the reason")


def test_beside_a_mounted_application(run: Any, scripted_api: Any) -> None:
    scripted_api.missing = "/api/"
    assert run("p").exit_code == 0
    assert scripted_api.requests[-1].path == "/realtime/api/projects/p/events"
