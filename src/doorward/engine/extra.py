"""What only some connections have: those that listen, have arrived, are emulated, go through an upstream, or are UDP.

Kept apart from the connection itself, so that a plain one does not pay for it.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Protocol

from doorward.api.errors import BadArgument
from doorward.api.ip_filter import IpFilter
from doorward.policy.address import canonical

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from doorward.api.sockets import SocketName
    from doorward.engine.association import FilterEntry
    from doorward.engine.chain import Attached
    from doorward.engine.connection import Connection
    from doorward.engine.grants import Promise
    from doorward.engine.session import Session
    from doorward.net.openings import Way
    from doorward.policy.model import Decision, IPAddress, Verdict


class Attachable(Protocol):
    """What data filters are attached to for one remote peer of a UDP mapping."""

    attached: list[Attached]


class DestinationChain(Attachable, Protocol):
    """One remote peer of a UDP mapping, as telling filters of it needs it."""

    @property
    def denied(self) -> str | None: ...
    @property
    def decision(self) -> Decision: ...
    @property
    def entries(self) -> tuple[FilterEntry, ...]: ...
    @property
    def verdicts(self) -> list[Verdict]: ...


class UdpSide(Protocol):
    """A UDP mapping behind its connection."""

    def destination(self, name: SocketName) -> Attachable:
        """The chain for a peer not spoken to yet. Raises BadContext for another, OutOfResources."""
        ...

    def own_name(self) -> SocketName | None:
        """Our end toward far ends; see `Mapping`. Raises LinkError kinds, OutOfResources, Terminating."""
        ...

    def read_all(self) -> None:
        """Something has changed that every datagram has to meet."""
        ...

    @property
    def note(self) -> str:
        """What was dropped, for the record; empty if nothing was."""
        ...


class Listening(Protocol):
    """What listens for a connection."""

    def close(self) -> None:
        """Stop. Idempotent."""
        ...


class Extra:
    """What only some connections have: listening, arrived, emulated, UDP."""

    __slots__ = ("bind_emulator", "borrowed", "buffer_size", "client_name", "full_proxy", "ip_filter",
                 "leads_to_client", "listening", "note", "parent", "peer_name", "promises", "socket_name", "udp", "via",
                 "ways")  # fmt: skip

    def __init__(self) -> None:
        self.ip_filter: IpFilter | None = None
        self.socket_name: SocketName | None = None
        self.peer_name: SocketName | None = None
        self.bind_emulator: str | None = None  # the filter that has claimed this bind
        # For a UDP destination, the address that it is to see in place of ours: the client's own, say.
        self.borrowed: Callable[[IPAddress], str | None] | None = None
        self.leads_to_client = False  # peers are led to an address of the client
        self.client_name: SocketName | None = None
        self.full_proxy = False
        self.buffer_size: int | None = None
        self.listening: Listening | None = None  # what ends with it
        self.parent: Connection | None = None  # the listening one that this one has arrived on
        self.note = ""  # what its record is to say beside
        self.udp: UdpSide | None = None
        self.promises: set[Promise] = set()  # grants that die with it
        self.via: str | None = None  # the upstream that it goes through
        self.ways: Sequence[Way] = ()  # to where it listens, through a packet filter

    def admit(self, ip_filter: IpFilter | None) -> None:
        """Have only these peers from now on; None is all."""
        self.ip_filter = ip_filter
        for way in self.ways:
            way.admit(ip_filter)
        if self.udp is not None:
            self.udp.read_all()

    def close_ways(self) -> None:
        """Nobody comes any more. Idempotent."""
        for way in self.ways:
            way.close()

    def limit_buffer(self, bytes_max: int) -> None:
        """Have no longer datagrams than this from now on."""
        self.buffer_size = bytes_max
        if self.udp is not None:
            self.udp.read_all()


def checked_name(name: SocketName) -> SocketName:
    """An address and a port, as what they are. Raises BadArgument."""
    try:
        address, port = str(ipaddress.ip_address(name[0])), name[1]
    except ValueError:
        raise BadArgument(f"{name[0]!r} is no address") from None
    if not 0 <= port <= 65_535:
        raise BadArgument(f"{port} is no port")
    return address, port


def copied_filter(ip_filter: IpFilter | None) -> IpFilter | None:
    """What a filter gives is copied, so that later changes do not count. Raises BadArgument: a text, for one."""
    if ip_filter is None or isinstance(ip_filter, IpFilter):
        return None if ip_filter is None else ip_filter.clone()
    raise BadArgument(f"{ip_filter!r:.80} is no IP filter")


def client_name(session: Session, name: SocketName) -> SocketName:
    """An address of this session's client that a peer may be led to. Raises BadArgument."""
    address, port = checked_name(name)
    if canonical(ipaddress.ip_address(address)) != session.address:
        raise BadArgument(f"{address} is not the client's address")
    if not port:
        raise BadArgument("nobody can be led to port 0")
    return str(session.address), port
