"""The events that a session filter may receive. Each carries what it is about and nothing that can outlive it.

`settings` is what this filter made of its settings for the rule that allowed the traffic
(`ApplicationFilter.compile_settings`). `is_secondary` says that a filter has promised this connection.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from doorward.api.contracts import Connection
    from doorward.api.sessions import Session
    from doorward.api.sockets import SocketName


class EventKind(enum.StrEnum):
    """What may happen that a filter can hear of."""

    CONNECT = "connect"
    UDP_DESTINATION = "udp_destination"
    BIND = "bind"
    LISTEN = "listen"
    ACCEPT = "accept"
    RESOLVE = "resolve"
    ESTABLISHED = "established"
    TERMINATING = "terminating"


@dataclass(frozen=True, slots=True)
class ConnectEvent:
    """A client asked for a TCP connection, and policy allowed it; nothing is dialled yet.

    The handler may attach data filters, emulate, or deny. `host` is the name the client asked for (None if it gave
    an address), `address` the first address that will be tried. `protocol` is the policy's name for the port.
    """

    connection: Connection
    host: str | None
    address: str
    port: int
    protocol: str | None
    is_secondary: bool = False
    settings: object = None


class UdpDestination(Protocol):
    """One remote peer of a UDP mapping, for as long as it is remembered."""

    @property
    def host(self) -> str | None:
        """The name the client asked for; None if it gave an address."""
        ...

    @property
    def address(self) -> str: ...
    @property
    def port(self) -> int: ...

    def deny(self, reason: str = "denied_by_filter") -> None:
        """Drop datagrams to it, silently. Raises BadContext outside `on_udp_destination`."""
        ...


@dataclass(frozen=True, slots=True)
class UdpDestinationEvent:
    """A UDP mapping is about to speak to a peer that is not remembered; policy allowed it.

    Once for as long as the peer is remembered. The handler may attach data filters for this peer
    (`attach_data_filter` here means the peer, too), or deny it.
    """

    connection: Connection
    destination: UdpDestination
    protocol: str | None
    is_secondary: bool = False
    settings: object = None


@dataclass(frozen=True, slots=True)
class BindEvent:
    """A client asked the firewall for a local port, or a filter did so for it. Nothing is bound yet.

    `address` and `port` are the local end that was asked for, `""` and 0 if the firewall is to choose. The handler
    may deny (the client sees "address in use"), narrow by an IP filter, emulate, and for UDP attach data filters.
    """

    connection: Connection
    transport: Literal["tcp", "udp"]
    address: str
    port: int
    protocol: str | None
    is_secondary: bool = False
    settings: object = None


@dataclass(frozen=True, slots=True)
class ListenEvent:
    """The firewall listens on a client's behalf, here. It cannot be denied: deny the bind, or who arrives."""

    connection: Connection
    address: str
    port: int
    protocol: str | None
    is_secondary: bool = False
    settings: object = None


@dataclass(frozen=True, slots=True)
class AcceptEvent:
    """A peer has arrived that may be admitted; the client's leg does not exist yet.

    `connection` is the new one, `listening` the one it arrived on. The handler may attach data filters, or deny:
    then the peer is reset.
    """

    connection: Connection
    listening: Connection
    remote: SocketName
    local: SocketName
    protocol: str | None
    is_secondary: bool = False
    settings: object = None


class ResolveEvent:
    """A name is looked up on a client's behalf, or an address: once before that, once after it.

    Exactly one of `name` and `address` is set. `results` are addresses for a name, names for an address; empty
    before. What a handler sets takes the place of the look-up, or of its answer; policy judges it all the same.
    """

    __slots__ = ("_expect_open", "address", "before", "connection", "denied", "name", "results", "session")

    def __init__(
        self,
        session: Session,
        connection: Connection | None,
        *,
        name: str | None = None,
        address: str | None = None,
        results: tuple[str, ...] = (),
        before: bool,
        expect_open: Callable[[], None],
    ) -> None:
        """`expect_open` raises BadContext once the handlers are through."""
        self.session = session
        self.connection = connection
        self.name = name
        self.address = address
        self.results = results
        self.before = before
        self.denied: str | None = None
        self._expect_open = expect_open

    def set_result(self, *results: str) -> None:
        """The answer, in place of any other: addresses for a name, names for an address. Raises BadContext later."""
        self._expect_open()
        self.results = results

    def deny(self, reason: str = "denied_by_filter") -> None:
        """The client is told that there is no such name. Raises BadContext later."""
        self._expect_open()
        self.denied = reason


@dataclass(frozen=True, slots=True)
class EstablishedEvent:
    """Both legs of a connection stand, no byte has moved yet.

    For the filter that promised the connection, with the `context` it gave; and for who asked for the event.
    """

    connection: Connection
    context: object = None


@dataclass(frozen=True, slots=True)
class TerminatingEvent:
    """The connection has ended and its record is about to be written. Always delivered to a filter that joined.

    Bytes sent run from the client to the server. `end` says how it ended (`closed`, `reset`, `idle_timeout`, …).
    """

    connection: Connection
    bytes_sent: int
    bytes_received: int
    end: str
