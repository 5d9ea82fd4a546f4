"""The page and the file that are kept of a run."""

from __future__ import annotations

import json
from pathlib import Path

from bench.figures import Judgement, Memory
from bench.report import Results, markdown, save
from tests.bench.samples import made


def results() -> Results:
    return Results(
        started="2026-01-02 03:04 UTC",
        method="one round",
        machine={"processor": "2 cores"},
        versions={"doorward": "1.0", "haproxy-copy": "2.0"},
        how={"doorward": "with rules", "haproxy-copy": "copying"},
        skipped={"squid": "squid is not installed"},
        groups=("messages", "memory", "judgements"),
        failures=["nginx, start: ended with status 1"],
        samples=[
            made("messages", "doorward", 1, 80_000),
            made("messages", "haproxy-copy", 1, 70_000),
            made("messages", "direct", 1, 160_000),
        ],
        memory=[Memory("doorward", 100, 0, 204_800)],
        judgements=[Judgement("a name matches", 3.0, 3.3)],
        relays={"doorward": "native"},
        processes={"doorward": 1},
    )


def test_the_page_says_who_was_measured_how_and_who_was_not() -> None:
    page = markdown(results())
    assert "- doorward (1.0, native relay, processes: 1): with rules" in page
    assert "- squid, left out: squid is not installed" in page
    assert "- nginx, start: ended with status 1" in page


def test_the_figures_end_with_the_bars() -> None:
    figures = markdown(results()).partition("## Figures")[2].partition("## Failed")[0]
    assert figures.rindex("### ") == figures.index("### Bars: 3 of 4 met")
    assert "0.50" in next(
        line for line in figures.splitlines() if line.startswith("| doorward ") and "80,000" in line
    )
    assert "| messages, CPU µs/message" in figures


def test_the_file_for_programs_holds_the_bars_and_every_sample(tmp_path: Path) -> None:
    page = save(results(), tmp_path, "day")
    kept = json.loads(page.with_suffix(".json").read_text())
    assert [bar["verdict"] for bar in kept["bars"]] == ["met", "met", "not measured", "met"]
    assert len(kept["samples"]) == 3


def test_a_second_run_of_the_day_does_not_overwrite_the_first(tmp_path: Path) -> None:
    assert [save(results(), tmp_path, "day").name for _ in range(2)] == ["day.md", "day-2.md"]
