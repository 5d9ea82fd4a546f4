"""Peers that may come to a mapping though nobody has spoken to them: what filters have promised.

Protocols whose server answers from a port of its own choice need this, TFTP among them. A promise admits peers by
their address, on one of the mapping's sockets; whoever comes by it is a destination of the mapping from then on, which
the client may answer. When the promise ends the way is closed for everybody else, at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from doorward.engine.extra import checked_name
from doorward.engine.grants import Promise, way_of

if TYPE_CHECKING:
    from doorward.api.ip_filter import IpFilter
    from doorward.api.sockets import SocketName
    from doorward.engine.grants import Offer
    from doorward.engine.session import Session
    from doorward.net.datagrams import SocketAddress
    from doorward.net.openings import Way


class Peers(NamedTuple):
    """Who may come, and by which IP version: that of the socket which the promise is about."""

    version: int
    admitted: IpFilter


class Expected:
    """Of one mapping."""

    __slots__ = ("_open",)

    def __init__(self) -> None:
        self._open: dict[Promise, Peers] = {}  # the oldest first

    def __len__(self) -> int:
        return len(self._open)

    def add(self, promise: Promise, version: int, admitted: IpFilter, way: Way | None = None) -> None:
        """Let them come, by this way, until the promise ends."""
        self._open[promise] = Peers(version, admitted.clone())

        def forget() -> None:
            del self._open[promise]
            if way is not None:
                way.close()

        promise.on_end = forget

    def find(self, where: SocketAddress) -> Promise | None:
        """The oldest promise by which this peer may come; it is not used yet."""
        if not self._open:
            return None
        version = 4 if len(where) == 2 else 6
        for promise, peers in self._open.items():
            if peers.version == version and peers.admitted.includes(where[0]):
                return promise
        return None

    def end(self) -> None:
        """Nobody can come any more: what was promised is over."""
        for promise in tuple(self._open):
            promise.cancel()


def expect_peers(session: Session, bound: SocketName, admitted: IpFilter, offer: Offer) -> Promise:
    """See `api.Session.retroactive_allow_bind`, for UDP. Raises NotFound, and as `Promise`."""
    name = checked_name(bound)
    mapping, outer = session.engine.udp.find(session, name)
    promise = Promise(
        session.engine.grants, session, way_of(session, offer, "udp", name[1]), **offer._asdict()
    )
    promise.socket_name = outer.name
    openings = session.engine.arrivals.openings
    way = None if openings is None else openings.way("udp", outer.name, admitted)
    mapping.expected.add(promise, outer.version, admitted, way)
    return promise
