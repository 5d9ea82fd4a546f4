"""What `doorward status` is told. Everything in it was counted anyway; asking costs connections nothing."""

from __future__ import annotations

from typing import Literal

import msgspec

from doorward.record.tally import Tally

State = Literal["starting", "serving", "silent", "down"]


class Counts(msgspec.Struct):
    """Of records on disk: how many were allowed, denied and failed, and the bytes that they tell of."""

    allowed: int = 0
    denied: int = 0
    failed: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0


class WorkerStatus(msgspec.Struct):
    """One process that serves clients, since it was started.

    `worker` is its place, from 1; 0 where there is only one process. `connections` are alive, `begun` is how many there
    were. `silent`: it does not answer; `down`: it has died, and the next one is not there yet.
    """

    worker: int
    pid: int
    state: State
    uptime_s: float = 0.0
    restarts: int = 0
    connections: int = 0
    sessions: int = 0
    begun: int = 0
    records_waiting: int = 0
    records_lost: int = 0
    log_failure: str | None = None
    counts: Counts = msgspec.field(default_factory=Counts)


class Status(msgspec.Struct):
    """The whole firewall. `counts` are of all workers since its start, those that have died among them.

    `kernel` has what a gateway's packet filter settled by itself, by rule or reason, and what it let come up.
    """

    version: str
    policy: str
    path: str
    pid: int
    uptime_s: float
    relay: str
    listening: list[str]
    filters: list[str]
    counts: Counts
    workers: list[WorkerStatus]
    kernel: dict[str, int] = {}


def counts_of(tally: Tally) -> Counts:
    """What was counted, as it is told."""
    return Counts(tally.allowed, tally.denied, tally.failed, tally.bytes_sent, tally.bytes_received)


def shown_address(host: str, port: int) -> str:
    """`127.0.0.1:1080`, `[::1]:1080`."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
