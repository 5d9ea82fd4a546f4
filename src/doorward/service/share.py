"""How several workers divide one firewall among themselves, and what each of them has from its supervisor."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from typing import Literal, NamedTuple

from msgspec.structs import replace

from doorward.config.document import WORKERS_MAX
from doorward.config.model import Configuration, ListenAddress, PublishedAddress
from doorward.record.writer import Batches


class Bound(NamedTuple):
    """Something that is bound: where clients of the proxies come in, or peers of a published server. As configured."""

    kind: Literal["proxy", "tcp", "udp"]
    host: str
    port: int


@dataclass(slots=True)
class Share:
    """What one worker has. `sockets` are bound, those for streams listen already; who takes one out owns it.

    `first_id` is where connections and sessions begin to be counted, so that their numbers are nobody else's.
    """

    writer: Batches
    first_id: int
    sockets: dict[Bound, socket.socket]

    def take(self, bound: Bound) -> socket.socket | None:
        """The socket for this, at most once."""
        return self.sockets.pop(bound, None)

    def close(self) -> None:
        """Close what nobody took. Idempotent."""
        while self.sockets:
            self.sockets.popitem()[1].close()


def bound_at(address: ListenAddress | PublishedAddress) -> Bound:
    """What an address of the configuration stands for."""
    if isinstance(address, ListenAddress):
        return Bound("proxy", address.host, address.port)
    return Bound(address.transport, str(address.address), address.port)


def all_bound(configuration: Configuration) -> list[Bound]:
    """Everything that a configuration wants bound, each once."""
    proxies = [bound_at(address) for address in configuration.listen]
    published = [bound_at(here) for server in configuration.published for here in server.listen]
    return list(dict.fromkeys(proxies + published))


def worker_count(configuration: Configuration) -> int:
    """How many processes the configuration asks for, on this machine."""
    if configuration.workers is not None:
        return configuration.workers
    return min(len(os.sched_getaffinity(0)), WORKERS_MAX)


def share_of(configuration: Configuration, workers: int) -> Configuration:
    """The configuration of one of so many workers: of what counts all clients, each gets its part, rounded up.

    Limits of one client stay as they are, since a client has one worker.
    """
    limits = configuration.limits
    part = replace(
        limits,
        connections_max=-(-limits.connections_max // workers),
        sessions_max=-(-limits.sessions_max // workers),
    )
    return replace(configuration, limits=part)
