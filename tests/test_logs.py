"""The log as lines of text or as objects, beside whatever logging the host has configured."""

from __future__ import annotations

import json
import logging
import logging.config
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from automoderate import _logs

OURS = logging.getLogger("automoderate.tests")


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """What a test configures ends with it."""
    loggers = [logging.root, logging.getLogger(_logs.ROOT), logging.getLogger("py.warnings")]
    before = [(logger, list(logger.handlers), logger.level, logger.propagate) for logger in loggers]
    formatters = [(handler, handler.formatter) for logger in loggers for handler in logger.handlers]
    hooks = sys.excepthook, sys.unraisablehook, threading.excepthook
    yield
    sys.excepthook, sys.unraisablehook, threading.excepthook = hooks
    logging.captureWarnings(False)
    for handler, formatter in formatters:
        handler.setFormatter(formatter)
    for logger, handlers, level, propagate in before:
        logger.handlers[:] = handlers
        logger.setLevel(level)
        logger.propagate = propagate


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_a_line_is_an_object_with_what_the_call_has_named(capsys: pytest.CaptureFixture[str]) -> None:
    _logs.configure("info", alone=True, form="json")
    before = datetime.now(UTC)
    OURS.info(
        "%s left\nin two lines, \udcff", "ann", extra={"event": "left", "user": "u1", "project": "p1", "sid": None}
    )
    OURS.debug("not at this level", extra={"event": "nothing"})
    (line,) = lines(capsys)
    said = datetime.fromisoformat(line.pop("time"))
    assert abs((said - before).total_seconds()) < 60
    assert said.utcoffset() is not None
    assert line == {
        "level": "info", "logger": "automoderate.tests", "event": "left", "message": "ann left\nin two lines, \udcff",
        "user": "u1", "project": "p1",
    }  # fmt: skip


def test_no_other_field_gets_into_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    _logs.configure("info", alone=True, form="json")
    OURS.info("hello", extra={"event": "hello", "cookie": "session=x", "content": "spam", "reason": ValueError("why")})
    (line,) = lines(capsys)
    assert line.keys() == {"time", "level", "logger", "event", "message", "reason"}
    assert line["reason"] == "why", "what is no JSON is text"


def test_an_exception_is_one_field(capsys: pytest.CaptureFixture[str]) -> None:
    _logs.configure("info", alone=True, form="json")
    try:
        raise OSError("the disk is full")
    except OSError:
        OURS.exception("it failed", extra={"event": "failed"})
    OURS.error("no exception there", exc_info=True, extra={"event": "failed"})
    line, without = lines(capsys)
    assert line["level"] == "error"
    assert line["exception"].startswith("Traceback")
    assert line["exception"].endswith("OSError: the disk is full")
    assert "exception" not in without


def test_libraries_and_warnings_are_lines_too_where_the_process_is_ours(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.root, "handlers", [])  # pytest has some
    _logs.configure("warning", alone=True, form="json")
    logging.getLogger("another.program").warning("careful")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn_explicit("old", DeprecationWarning, "file.py", 1)
    library, warning = lines(capsys)
    assert (library["event"], library["message"], library["logger"]) == ("message", "careful", "another.program")
    assert "DeprecationWarning: old" in warning["message"]


def test_what_nobody_caught_is_a_line_where_the_process_is_ours(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By itself Python writes a traceback of many lines to the same place."""
    monkeypatch.setattr(logging.root, "handlers", [])
    _logs.configure("warning", alone=True, form="json")

    def fail(error: BaseException) -> None:
        raise error

    class Unfinished:
        def __del__(self) -> None:
            raise OSError("nor this")

    for error in (OSError("the disk\nis full"), SystemExit(1)):
        thread = threading.Thread(target=fail, args=(error,), name="reader")
        thread.start()
        thread.join()
    Unfinished()
    try:
        fail(ZeroDivisionError("it ends"))
    except ZeroDivisionError as end:
        sys.excepthook(type(end), end, end.__traceback__)
    in_thread, ignored, whole = lines(capsys)
    assert (in_thread["level"], in_thread["event"]) == ("critical", "crash")
    assert "reader" in in_thread["message"]
    for line, last in ((in_thread, "OSError: the disk\nis full"), (ignored, "nor this"), (whole, "it ends")):
        assert line["exception"].startswith("Traceback")
        assert line["exception"].endswith(last)

    sys.excepthook(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert "KeyboardInterrupt" in capsys.readouterr().err, "who interrupts it knows"


def test_the_hooks_of_a_mounted_application_are_its_own() -> None:
    before = sys.excepthook, sys.unraisablehook, threading.excepthook
    _logs.configure("warning", alone=False, form="json")
    _logs.configure("warning", alone=True, form="text")
    assert (sys.excepthook, sys.unraisablehook, threading.excepthook) == before


def test_a_line_whose_arguments_do_not_fit_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    """By itself logging writes a traceback with the arguments, whatever they hold."""
    _logs.configure("info", alone=True, form="json")
    OURS.info("%d left", "session=secret", extra={"event": "left"})
    (line,) = lines(capsys)
    assert (line["event"], line["message"]) == ("left", "%d left")


def test_the_hosts_configuration_stays_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    """Whether it came first or comes later: its lines are written its way, ours in ours, and none twice."""
    host = {
        "version": 1,
        "formatters": {"own": {"format": "HOST %(message)s"}},
        "handlers": {"own": {"class": "logging.StreamHandler", "formatter": "own", "stream": sys.stdout}},
        "root": {"handlers": ["own"], "level": "DEBUG"},
    }
    logging.config.dictConfig(host)
    _logs.configure("info", alone=False, form="json")
    logging.config.dictConfig({**host, "disable_existing_loggers": False})
    logging.getLogger("host").info("its own")
    OURS.info("ours", extra={"event": "ours"})
    captured = capsys.readouterr()
    assert captured.out == "HOST its own\n"
    assert [json.loads(line)["event"] for line in captured.err.splitlines()] == ["ours"]


def clear() -> None:
    logging.getLogger(_logs.ROOT).handlers.clear()


def theirs(**logger: Any) -> Callable[[], None]:
    """Configure a logger of our name, as an application that has one does."""
    return lambda: logging.config.dictConfig({
        "version": 1, "handlers": {"console": {"class": "logging.StreamHandler"}}, "loggers": {_logs.ROOT: logger},
    })  # fmt: skip


@pytest.mark.parametrize(
    "configure",
    [
        clear,
        theirs(level="ERROR", handlers=["console"], propagate=False),
        theirs(level="DEBUG", handlers=[]),
        lambda: logging.config.dictConfig({
            "version": 1, "incremental": True, "loggers": {_logs.ROOT: {"level": "CRITICAL"}},
        }),
        logging.disable,
    ],
)  # fmt: skip
def test_an_application_with_a_logger_of_our_name_does_not_silence_us(
    configure: Callable[[], None], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.root, "handlers", [])
    lasting = logging.getLogger("automoderate.tests.lasting")
    _logs.configure("info", alone=False)
    _logs.keep_enabled()
    configure()
    try:
        lasting.debug("not at this level")
        lasting.info("listening")
        lasting.error("failed")
    finally:
        logging.disable(logging.NOTSET)
    said = capsys.readouterr().err
    assert [said.count(word) for word in ("level", "listening", "failed")] == [0, 1, 1], said


def test_a_host_that_formats_our_log_has_the_fields(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a command line of ours nothing is configured: what the host has configured gets our records."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(event)s %(user)s: %(message)s"))
    logging.root.addHandler(handler)
    OURS.warning("hello", extra={"event": "hello", "user": "u1"})
    assert capsys.readouterr().out == "hello u1: hello\n"


@pytest.mark.parametrize("form", [_logs.TEXT, _logs.JSON])
def test_a_worker_says_its_number(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    _logs.configure("info", alone=True, form=form)
    _logs.name_worker(3, form)
    OURS.info("here", extra={"event": "here"})
    written = capsys.readouterr().err
    if form == _logs.JSON:
        assert json.loads(written)["worker"] == 3
    else:
        assert written.endswith(" INFO worker 3 automoderate.tests: here\n")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_what_strangers_bring_about_is_said_so_often_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    log = _logs.Sparingly(OURS, clock)

    def say(reason: str) -> None:
        log.log(logging.INFO, "refused: %s", reason, extra={"event": "refused", "reason": reason})

    with caplog.at_level(logging.INFO):
        for _ in range(_logs.LINES + 900):
            say("no cookie")
        say("expired")
        assert caplog.messages == ["refused: no cookie"] * _logs.LINES + ["refused: expired"]
        caplog.clear()
        clock.now += _logs.MINUTE
        for _ in range(2):
            say("no cookie")
            say("expired")
    assert caplog.messages == [
        "refused: no cookie (900 more like it were left out)", "refused: expired",
        "refused: no cookie", "refused: expired",
    ]  # fmt: skip
    assert {record.__dict__["reason"] for record in caplog.records} == {"no cookie", "expired"}
