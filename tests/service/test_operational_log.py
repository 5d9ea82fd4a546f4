from __future__ import annotations

import io
import json
from typing import Any

import pytest

from doorward.service.operational_log import VALUE_CHARACTERS_MAX, make_logger

HOSTILE = 'a\x1b[31m\n{"level": "error"}\r\x07\u202e'


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_one_json_object_with_time_and_level() -> None:
    stream = io.StringIO()
    make_logger(stream).info("reloaded", policy="abc", rules=3, ok=True, nothing=None)
    (line,) = lines(stream)
    assert (line["event"], line["level"], line["policy"], line["rules"]) == ("reloaded", "info", "abc", 3)
    assert line["timestamp"].endswith("Z")


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_nothing_that_anybody_said_can_steer_a_terminal_or_forge_a_line(stream: type[io.StringIO]) -> None:
    out = stream()
    log = make_logger(out, color=False)
    log.warning(HOSTILE, host=HOSTILE, some=[HOSTILE], error=ValueError(HOSTILE))
    text = out.getvalue()
    assert text.count("\n") == 1
    assert not {"\x1b", "\r", "\x07", "\u202e"} & set(text)


def test_a_name_of_a_field_cannot_either() -> None:
    out = Terminal()
    make_logger(out, color=False).info("event", **{"a\x1b[31m\nb": "value"})
    assert "\x1b" not in out.getvalue()
    assert out.getvalue().count("\n") == 1


def test_an_exception_is_one_line_with_its_place() -> None:
    stream = io.StringIO()
    try:
        raise KeyError("missing")
    except KeyError as error:
        make_logger(stream).error("a task failed", error=error)
    (line,) = lines(stream)
    assert line["error"] == "KeyError: 'missing'"
    assert line["at"].partition(":")[0].endswith("test_operational_log.py")


def test_an_endless_value_is_cut() -> None:
    stream = io.StringIO()
    make_logger(stream).info("event", host="x" * 10_000_000)
    assert len(stream.getvalue()) < VALUE_CHARACTERS_MAX + 500


def test_levels_below_the_one_that_was_asked_for_are_left_out() -> None:
    stream = io.StringIO()
    log = make_logger(stream, level="warning")
    log.info("not this")
    log.error("this")
    assert [line["event"] for line in lines(stream)] == ["this"]
