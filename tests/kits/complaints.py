"""What a server of a test must not have written to the log."""

from __future__ import annotations

import logging

import pytest


def complaints(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What event loops and adapters have said went wrong, in the test that ends."""
    return [record.getMessage() for record in caplog.get_records("call") if _is_complaint(record)]


def _is_complaint(record: logging.LogRecord) -> bool:
    # This one is how asyncio counts writes between a reset and the moment it reports the connection lost.
    if record.name in ("asyncio", "trio", "eventlet") and record.getMessage() != "socket.send() raised exception.":
        return record.levelno >= logging.WARNING
    return record.name.startswith("automoderate.adapters") and record.levelno >= logging.ERROR
