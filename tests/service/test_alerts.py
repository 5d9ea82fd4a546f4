"""An alert is one line a minute; whatever else there was is counted and told."""

from __future__ import annotations

import io
import json
from typing import Any

from doorward.service.alerts import MINUTE_S, NAMES_MAX, OTHERS, Alerts
from doorward.service.operational_log import make_logger


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Said:
    """Alerts with the real log behind them."""

    def __init__(self) -> None:
        self.clock = Clock()
        self._stream = io.StringIO()
        self.alerts = Alerts("watching", make_logger(self._stream), self.clock)

    def lines(self) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self._stream.getvalue().splitlines()]
        for line in lines:
            assert line["event"] == "alert"
            assert line["filter"] == "watching"
            assert line["level"] == "warning"
        return lines


def test_one_line_a_minute_for_each_name_and_the_rest_is_told_with_the_next() -> None:
    said = Said()
    for number in range(5):
        said.alerts.alert("virus", {"number": number})
    said.alerts.alert("full", {})
    said.clock.now += MINUTE_S
    said.alerts.alert("virus", {"number": 9})
    assert [(line["alert"], line.get("number"), line.get("not_told")) for line in said.lines()] == [
        ("virus", 0, None),
        ("full", None, None),
        ("virus", 9, 4),
    ]


def test_what_was_counted_is_told_at_the_end() -> None:
    said = Said()
    for _ in range(3):
        said.alerts.alert("virus", {})
    said.alerts.close()
    assert [(line["alert"], line.get("not_told")) for line in said.lines()] == [("virus", None), ("virus", 2)]


def test_names_by_the_thousand_are_lines_by_the_dozen_and_nothing_is_lost() -> None:
    said = Said()
    for number in range(10_000):
        said.alerts.alert(f"name {number}", {})
    assert len(said.lines()) == NAMES_MAX + 1
    assert said.lines()[-1]["alert"] == OTHERS
    said.clock.now += MINUTE_S
    said.alerts.alert("another", {})
    said.alerts.close()
    assert sum(1 + line.get("not_told", 0) for line in said.lines() if line["alert"] != "another") >= 10_000


def test_fields_cannot_take_the_place_of_what_the_line_says_itself() -> None:
    said = Said()
    said.alerts.alert(
        "virus", {"filter": "somebody else", "alert": "nothing", "event": "x", "level": "debug"}
    )
    [line] = said.lines()
    assert (line["alert"], line["filter_"], line["alert_"]) == ("virus", "somebody else", "nothing")


def test_what_the_network_said_is_escaped() -> None:
    said = Said()
    said.alerts.alert("line\nbreak" + "x" * 1000, {"found": "\x1b[31m\n", "error": ValueError("\r\n")})
    [line] = said.lines()
    assert "\n" not in line["alert"] + line["found"] + line["error"]
    assert len(line["alert"]) < 200
