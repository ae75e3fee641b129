"""The server's own log, which the logging configuration of a mounted application neither silences nor doubles.

A call that logs names what happened with ``extra={"event": …}``, and of the fields below those that its message has.
Whatever formats the log, ours or the host's, can use them.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import ClassVar

ROOT = "automoderate"
FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"

TEXT, JSON = "text", "json"
"""How a line may be written."""

FIELDS = ("sid", "user", "project", "reason", "address", "worker")
"""What a line may say besides its event. There is none for cookies, keys or content, which stay out of the log."""

LINES, MINUTE = 100, 60.0
"""Lines of one kind that strangers can bring about, and the seconds within which no more of them are written."""


class Sparingly:
    """Writes lines that strangers can bring about as often as they like, so that strangers cannot fill the log.

    From any threads: a line too many or too few does no harm.
    """

    def __init__(self, logger: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self._logger = logger
        self._clock = clock
        self._kinds: dict[tuple[str, object], tuple[float, int]] = {}
        """When the minute of each kind began, and how many there have been since."""

    def log(self, level: int, message: str, *args: object, extra: Mapping[str, object]) -> None:
        """Write a line, unless there were too many of the same ``message`` and reason.

        The first line of a later minute says how many were left out.
        """
        now, kind = self._clock(), (message, extra.get("reason"))
        began, count = self._kinds.get(kind, (now, 0))
        if now < began + MINUTE:
            self._kinds[kind] = began, count + 1
            if count < LINES:
                self._logger.log(level, message, *args, extra=extra)
            return
        self._kinds[kind] = now, 1
        if count > LINES:
            message, args = f"{message} (%d more like it were left out)", (*args, count - LINES)
        self._logger.log(level, message, *args, extra=extra)


class JsonFormatter(logging.Formatter):
    """One object a line: ``time``, ``level``, ``logger``, ``event``, ``message``, the fields there are, ``exception``.

    What other libraries log has the event ``message``.
    """

    def __init__(self, worker: int | None = None) -> None:
        """``worker`` is the number of the process among several."""
        super().__init__()
        self._worker = {} if worker is None else {"worker": worker}

    def format(self, record: logging.LogRecord) -> str:
        """Only ASCII, which every terminal and pipe takes without changing it."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": getattr(record, "event", "message"),
            "message": _message(record),
            **self._worker,
        }
        line |= {name: value for name in FIELDS if (value := getattr(record, name, None)) is not None}
        if record.exc_info and record.exc_info[0] is not None:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def _message(record: logging.LogRecord) -> str:
    """What a record says; where its arguments do not fit, as a library's may not, what it says without them."""
    try:
        return record.getMessage()
    except Exception:
        return str(record.msg)


class LastingLogger(logging.Logger):
    """A logger that stays enabled.

    ``logging.config`` disables all loggers that exist and that it is not told of, unless it is told not to, and
    ``logging.disable`` disables a level of every logger: an application that configures its own log means itself. It
    may even have a logger of our name. What the handlers that it leaves there do not take goes to our own.
    """

    ours: ClassVar[logging.Handler | None] = None

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802 - as logging names it
        least = self.getEffectiveLevel()
        return level >= (least if self.ours is None else min(least, self.ours.level))

    def callHandlers(self, record: logging.LogRecord) -> None:  # noqa: N802
        if self.ours is None or (record.levelno >= self.getEffectiveLevel() and self.hasHandlers()):
            super().callHandlers(record)
        elif record.levelno >= self.ours.level:
            self.ours.handle(record)

    @property
    def disabled(self) -> bool:
        return False

    @disabled.setter
    def disabled(self, value: bool) -> None:
        pass


def configure(level: str, *, alone: bool, form: str = TEXT) -> None:
    """Write what the server has to say to standard error, from ``level`` on, whatever else is configured.

    Where the process is ours ``alone``, what libraries say goes there too; a mounted application decides that itself.
    """
    ours = logging.getLogger(ROOT)
    ours.handlers = [_handler(form)]
    ours.setLevel(level.upper())
    LastingLogger.ours = ours.handlers[0]
    LastingLogger.ours.setLevel(ours.level)
    ours.propagate = False  # the same line would come once more, by way of the root's handlers
    if alone:
        logging.basicConfig(level=level.upper(), handlers=[_handler(form)])
        if form == JSON:
            logging.captureWarnings(True)  # else they are lines of their own in between,
            _report_what_nobody_caught()  # and so are tracebacks


def _report_what_nobody_caught() -> None:
    """Have the log say what ends the process, or a thread, or was raised where nobody can catch it."""

    def report(
        message: str, kind: type[BaseException], error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        caught = None if error is None else (kind, error, traceback)
        logging.getLogger(ROOT).critical(message, exc_info=caught, extra={"event": "crash"})

    def of_process(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            sys.__excepthook__(kind, error, traceback)
        else:
            report("The process ends: nobody caught an exception", kind, error, traceback)

    def of_thread(ended: threading.ExceptHookArgs) -> None:
        if ended.exc_type is not SystemExit:  # which ends no more than the thread, and means to
            name = "" if ended.thread is None else f" {ended.thread.name!r}"
            report(f"The thread{name} ends: nobody caught an exception", *ended[:3])

    def of_no_caller(raised: sys.UnraisableHookArgs) -> None:
        report(
            "An exception was raised where nobody can catch it", raised.exc_type, raised.exc_value, raised.exc_traceback
        )

    sys.excepthook, sys.unraisablehook, threading.excepthook = of_process, of_no_caller, of_thread


def keep_enabled() -> None:
    """Let no configuration, made or to come, disable the loggers that this package has so far."""
    for name, logger in logging.root.manager.loggerDict.items():
        if isinstance(logger, logging.Logger) and (name == ROOT or name.startswith(f"{ROOT}.")):
            logger.__class__ = LastingLogger


def name_worker(number: int, form: str = TEXT) -> None:
    """Begin every line with the number of the process among several; as JSON it is a field."""
    for logger in (logging.root, logging.getLogger(ROOT)):
        for handler in logger.handlers:
            handler.setFormatter(_formatter(form, number))


def _handler(form: str) -> logging.Handler:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_formatter(form, None))
    return handler


def _formatter(form: str, worker: int | None) -> logging.Formatter:
    if form == JSON:
        return JsonFormatter(worker)
    return logging.Formatter(FORMAT if worker is None else FORMAT.replace("%(name)s", f"worker {worker} %(name)s"))
