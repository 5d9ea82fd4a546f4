"""The bars: what Doorward has set itself to reach beside its peers, and whether this run reached it.

Pure: judges the numbers of a run. A factor is the median over rounds of ours over theirs in the same round.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from bench.figures import FIGURES, JUDGEMENTS, MEMORY, Judgement, Memory, Quantity, Sample, ratio, spread

KIB = 1024
SMALL_POLICY, LARGE_POLICY = 100, 100_000


@dataclass(frozen=True)
class Bar:
    """`ours` is to stand at `limit` times `theirs`: at least, or at most."""

    figure: str
    quantity: Quantity
    ours: str
    bound: Literal["at least", "at most"]
    limit: float
    theirs: str


@dataclass(frozen=True)
class Outcome:
    """One line of the table. `factor` is None when it was not measured; `verdict` says how it went, in words."""

    figure: str
    ours: str
    theirs: str
    bar: str
    factor: float | None
    verdict: str


def _bulk(figure: str) -> tuple[Bar, ...]:
    return (
        Bar(figure, "rate", "doorward", "at least", 1.4, "haproxy"),
        Bar(figure, "rate", "doorward", "at least", 1.0, "haproxy-pipes"),
        Bar(figure, "rate", "doorward", "at least", 2.0, "dante"),
        Bar(figure, "cpu", "doorward", "at most", 0.45, "haproxy"),
    )


def _filter(figure: str) -> tuple[Bar, ...]:
    ours = "doorward-search"
    return (
        Bar(figure, "rate", ours, "at least", 10.0, "mitmproxy-search"),
        Bar(figure, "rate", ours, "at least", 10.0, "mitmproxy-search-forgets"),
    )


def _connections(ours: str) -> tuple[Bar, ...]:
    return (
        Bar("connections", "rate", ours, "at least", 2.0, "dante"),
        Bar("connections", "rate", ours, "at least", 1.5, "squid"),
        Bar("connections", "rate", ours, "at least", 12.0, "mitmproxy"),
        Bar("connections", "cpu", ours, "at most", 0.5, "dante"),
        Bar("connections", "cpu", ours, "at most", 2.0, "haproxy"),
    )


BARS = (
    *_bulk("download-8"),
    *_bulk("upload-8"),
    Bar("messages", "cpu", "doorward", "at most", 1.0, "haproxy-copy"),
    *_connections("doorward"),
    *_connections("doorward-workers"),
    *_filter("filter-download"),
    *_filter("filter-upload"),
)
MEMORY_PEERS = ("doorward", "doorward-workers")
MEMORY_BYTES_MAX = 4 * KIB
JUDGEMENT_RATIO_MAX = 1.5


def number(value: float) -> str:
    """Three digits that matter, or all of them above a thousand."""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def verdict(factor: float, bound: str, limit: float) -> str:
    """Met, or missed by which part of the limit."""
    over = factor / limit - 1
    if over == 0 or (over > 0) == (bound == "at least"):
        return "met"
    return f"missed by {max(1, round(abs(over) * 100))} %"


def outcomes(
    groups: Sequence[str],
    samples: Sequence[Sample],
    memory: Sequence[Memory],
    judgements: Sequence[Judgement],
) -> list[Outcome]:
    """Every bar whose figure belongs to `groups`; one that was not measured says so."""
    asked = {figure.name for figure in FIGURES if figure.group in groups}
    found = [_compared(bar, samples) for bar in BARS if bar.figure in asked]
    if MEMORY in groups:
        found += [_memory(peer, memory) for peer in MEMORY_PEERS]
    if JUDGEMENTS in groups:
        found.append(_judgements(judgements))
    return found


def _compared(bar: Bar, samples: Sequence[Sample]) -> Outcome:
    figure = next(figure for figure in FIGURES if figure.name == bar.figure)
    unit = figure.rate_unit if bar.quantity == "rate" else figure.cpu_unit
    limit = f"{bar.bound} {bar.limit:g} x {bar.theirs}"
    of_figure = [s for s in samples if s.figure == bar.figure]
    title = f"{figure.name}, {unit}"
    factor = ratio(of_figure, bar.ours, bar.theirs, bar.quantity)
    ours, theirs = (_median(of_figure, peer, bar.quantity) for peer in (bar.ours, bar.theirs))
    said = "not measured" if factor is None else verdict(factor, bar.bound, bar.limit)
    return Outcome(title, f"{bar.ours} {ours}".strip(), theirs, limit, factor, said)


def _median(samples: Sequence[Sample], peer: str, quantity: Quantity) -> str:
    own = [s.quantity(quantity) for s in samples if s.peer == peer]
    return number(spread(own).median) if own else ""


def _memory(peer: str, memory: Sequence[Memory]) -> Outcome:
    title, limit = "memory, KiB/connection", f"at most {MEMORY_BYTES_MAX // KIB}"
    own = next((m for m in memory if m.peer == peer and m.full_bytes > m.empty_bytes), None)
    if own is None:
        return Outcome(title, peer, "", limit, None, "not measured")
    factor = own.bytes_per_tunnel / MEMORY_BYTES_MAX
    said = verdict(factor, "at most", 1.0)
    return Outcome(title, f"{peer} {number(own.bytes_per_tunnel / KIB)}", "", limit, factor, said)


def _judgements(judgements: Sequence[Judgement]) -> Outcome:
    title = f"judgements, µs, {LARGE_POLICY:,} rules, worst case"
    limit = f"at most {JUDGEMENT_RATIO_MAX:g} x that with {SMALL_POLICY}"
    worst = max(judgements, key=lambda one: one.ratio, default=None)
    if worst is None:
        return Outcome(title, "doorward", "", limit, None, "not measured")
    said = verdict(worst.ratio, "at most", JUDGEMENT_RATIO_MAX)
    ours, theirs = number(worst.large_us), number(worst.small_us)
    return Outcome(title, f"doorward {ours}", theirs, limit, worst.ratio, said)
