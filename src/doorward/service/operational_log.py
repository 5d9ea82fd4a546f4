"""The operational log: what happens to the firewall itself. Readable on a terminal, one JSON object a line otherwise.

Everything that is not plain text is escaped here, whoever said it; connections do not belong in it (they have
their records).
"""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, TextIO

import structlog

from doorward.wire.printable import printable

VALUE_CHARACTERS_MAX = 2_000

Logger = structlog.stdlib.BoundLogger | Any


def make_logger(stream: TextIO | None = None, *, level: str = "info", color: bool | None = None) -> Any:
    """A logger with `info`, `warning`, `error` and `debug`, writing to `stream` (standard error)."""
    stream = stream or sys.stderr
    terminal = stream.isatty()
    renderer: Any = (
        structlog.dev.ConsoleRenderer(colors=terminal if color is None else color, pad_event_to=0)
        if terminal
        else structlog.processors.JSONRenderer(ensure_ascii=True)
    )
    return structlog.wrap_logger(
        structlog.WriteLogger(stream),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%H:%M:%S" if terminal else "iso", utc=not terminal),
            _told,
            _escaped,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level.upper())),
        cache_logger_on_first_use=False,
    )


def _told(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """An exception as one line of text and the place in the code; the whole traceback only at debug level."""
    error = event.pop("error", None)
    if isinstance(error, BaseException):
        event["error"] = f"{type(error).__name__}: {error}"
        event["at"] = _place(error)
    elif error is not None:
        event["error"] = error
    return event


def _place(error: BaseException) -> str:
    traceback = error.__traceback__
    place = "?"
    while traceback is not None:
        place = f"{traceback.tb_frame.f_code.co_filename}:{traceback.tb_lineno}"
        traceback = traceback.tb_next
    return place


def _escaped(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """No control characters, no line breaks, no endless values."""
    for key in [key for key in event if not key.isprintable()]:
        event[printable(key)] = event.pop(key)
    for key, value in event.items():
        if isinstance(value, str):
            event[key] = printable(value, VALUE_CHARACTERS_MAX)
        elif not isinstance(value, int | float | bool | None):
            event[key] = printable(repr(value), VALUE_CHARACTERS_MAX)
    return event
