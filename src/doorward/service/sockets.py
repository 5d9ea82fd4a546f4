"""The bound sockets of all workers: as many for each address as there are workers, in the order of their places.

The supervisor keeps every one open for as long as the address is listened on. So a dead worker's clients wait for its
successor, and no place shifts.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import TypeAlias

from doorward.api.errors import DoorwardError
from doorward.config.model import Configuration
from doorward.net import listen, published
from doorward.net.reuseport import Spread
from doorward.service.channel import SOCKETS_MAX
from doorward.service.listeners import CannotListen
from doorward.service.share import Bound, all_bound

Groups: TypeAlias = dict[Bound, list[socket.socket]]


class SharedSockets:
    """As `Listeners` for one process: prepared before the old ones are given up, so it can be called off."""

    def __init__(self, workers: int) -> None:
        self._spread = Spread(workers)
        self._groups: Groups = {}

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """What those for clients of the proxies are bound to."""
        return [group[0].getsockname()[:2] for end, group in self._groups.items() if end.kind == "proxy"]

    def of(self, place: int, groups: Groups | None = None) -> tuple[list[Bound], list[int]]:
        """The ends, and for each the descriptor of the socket of this place."""
        groups = self._groups if groups is None else groups
        return list(groups), [group[place].fileno() for group in groups.values()]

    def prepare(self, wanted: Sequence[Bound]) -> Groups:
        """A group for each; those that exist stay. Raises CannotListen, with nothing new left open."""
        if len(wanted) > SOCKETS_MAX:
            raise CannotListen(
                f"cannot listen on {len(wanted)} addresses: with workers {SOCKETS_MAX} are possible"
            )
        prepared: Groups = {}
        for end in wanted:
            try:
                prepared[end] = self._groups.get(end) or self._group(end)
            except DoorwardError as error:
                self.abandon(prepared)
                raise CannotListen(f"cannot listen on {end.host} port {end.port}: {error.detail}") from error
        return prepared

    def new(self, prepared: Groups) -> Groups:
        """Of these, what workers do not have yet."""
        return {address: group for address, group in prepared.items() if address not in self._groups}

    def abandon(self, prepared: Groups) -> None:
        """Close what was made for nothing."""
        _close(self.new(prepared))

    def commit(self, prepared: Groups) -> None:
        """From now on these, and no others."""
        gone = {address: group for address, group in self._groups.items() if address not in prepared}
        self._groups = prepared
        _close(gone)

    def close(self) -> None:
        """Stop listening, as far as it is up to us. Idempotent."""
        self.commit({})

    def _group(self, end: Bound) -> list[socket.socket]:
        """Raises LinkError and its kind."""
        kind, host, port = end
        if kind == "proxy":
            return self._spread.group(lambda: listen.unbound(host), host, port)
        return self._spread.group(lambda: published.unbound(kind, host), host, port)


def wanted_by(configuration: Configuration) -> list[Bound]:
    """What a configuration has all workers bind. Raises CannotListen for what only one process can do."""
    if configuration.transparent is not None:
        raise CannotListen("[transparent] is for one process: it needs workers = 1 in [listen]")
    return all_bound(configuration)


def _close(groups: Groups) -> None:
    for group in groups.values():
        for sock in group:
            sock.close()
