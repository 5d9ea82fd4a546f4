"""What is measured: each figure as a row of a table, and the numbers that came out of it.

Pure: no process, no clock. A sample is one figure of one peer in one round.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from bench.load import Mode, Window

BYTES_PER_GB = 1e9

Quantity = Literal["rate", "cpu"]


@dataclass(frozen=True)
class Figure:
    """One figure: how the load is driven, and how operations become the numbers people compare.

    `rate_scale` turns operations per second into `rate_unit`; `cpu_scale` turns CPU seconds per operation
    into `cpu_unit`.
    """

    name: str
    group: str
    title: str
    mode: Mode
    parallel: int
    rate_unit: str
    rate_scale: float
    cpu_unit: str
    cpu_scale: float


def _bytes(name: str, group: str, title: str, mode: Mode, streams: int) -> Figure:
    return Figure(
        name,
        group,
        f"{title}, {mode}, {streams} stream{'s' if streams > 1 else ''}",
        mode,
        streams,
        "Gbit/s",
        8 / BYTES_PER_GB,
        "CPU s/GB",
        BYTES_PER_GB,
    )


FIGURES = (
    _bytes("download-1", "single", "Bulk", "download", 1),
    _bytes("upload-1", "single", "Bulk", "upload", 1),
    _bytes("download-8", "bulk", "Bulk", "download", 8),
    _bytes("upload-8", "bulk", "Bulk", "upload", 8),
    Figure(
        "connections",
        "connections",
        "New connections, 32 at a time: connect, handshake, 64-byte echo, close",
        "connections",
        32,
        "conn/s",
        1.0,
        "CPU s/10,000",
        1e4,
    ),
    Figure(
        "messages",
        "messages",
        "Round trips of 64 bytes on 100 connections",
        "messages",
        100,
        "messages/s",
        1.0,
        "CPU µs/message",
        1e6,
    ),
    Figure(
        "datagrams",
        "datagrams",
        "UDP datagrams of 64 bytes, one way, over 4 associations",
        "datagrams",
        4,
        "datagrams/s",
        1.0,
        "CPU µs/datagram",
        1e6,
    ),
    _bytes("filter-download", "filter", "Bytes that Python searches chunk by chunk", "download", 8),
    _bytes("filter-upload", "filter", "Bytes that Python searches chunk by chunk", "upload", 8),
)

MEMORY = "memory"
JUDGEMENTS = "judgements"
GROUPS = (*dict.fromkeys(figure.group for figure in FIGURES), MEMORY, JUDGEMENTS)
DEFAULT_GROUPS = tuple(group for group in GROUPS if group != "single")


@dataclass(frozen=True)
class Sample:
    """One figure of one peer in one round."""

    figure: str
    peer: str
    round: int
    rate: float
    cpu: float
    proxy_busy: float
    window: Window

    def quantity(self, of: Quantity) -> float:
        return self.rate if of == "rate" else self.cpu


def sample(figure: Figure, peer: str, round_number: int, window: Window) -> Sample:
    return Sample(
        figure.name,
        peer,
        round_number,
        rate=window.operations / window.seconds * figure.rate_scale,
        cpu=window.proxy_cpu_s / window.operations * figure.cpu_scale,
        proxy_busy=window.proxy_cpu_s / window.seconds,
        window=window,
    )


@dataclass(frozen=True)
class Memory:
    """What idle tunnels cost one peer; `failed` holds the reason if they could not be held."""

    peer: str
    tunnels: int
    empty_bytes: int
    full_bytes: int
    failed: str = ""

    @property
    def bytes_per_tunnel(self) -> float:
        return (self.full_bytes - self.empty_bytes) / self.tunnels


@dataclass(frozen=True)
class Judgement:
    """Microseconds of one judgement in one case, by a small policy and by a large one."""

    case: str
    small_us: float
    large_us: float

    @property
    def ratio(self) -> float:
        return self.large_us / self.small_us


@dataclass(frozen=True)
class Spread:
    """The median of some numbers, and how far they lie apart."""

    median: float
    low: float
    high: float


def spread(numbers: Sequence[float]) -> Spread:
    return Spread(statistics.median(numbers), min(numbers), max(numbers))


def ratio(samples: Sequence[Sample], peer: str, to: str, of: Quantity = "rate") -> float | None:
    """The median over rounds of peer's rate or CPU cost over `to`'s in the same round; None without such a round.

    Within a round, because the speed of a shared machine moves by more than the peers differ.
    """
    base = {s.round: s.quantity(of) for s in samples if s.peer == to}
    shared = [s.quantity(of) / base[s.round] for s in samples if s.peer == peer and base.get(s.round)]
    return statistics.median(shared) if shared else None
