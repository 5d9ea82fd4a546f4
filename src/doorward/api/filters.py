"""What a filter author subclasses.

    ApplicationFilter   lives as long as the process; makes one SessionFilter per session it joins
    SessionFilter       receives that session's events; may attach data filters, or deny
    DataFilter          pumps the bytes of one connection between an internal and an external socket
    StreamFilter        a DataFilter for the common case: two plain functions over chunks

A file that holds nothing but one DataFilter class with an `interest` is a complete filter.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeAlias

from doorward.api.contracts import Priority
from doorward.api.events import EventKind

if TYPE_CHECKING:
    from doorward.api.contracts import Connection, Firewall
    from doorward.api.events import (
        AcceptEvent,
        BindEvent,
        ConnectEvent,
        EstablishedEvent,
        ListenEvent,
        ResolveEvent,
        TerminatingEvent,
        UdpDestinationEvent,
    )
    from doorward.api.sessions import Session
    from doorward.api.sockets import Socket

ANY: Final = "any"

# A `Socket`, and None for who emulates. A filter knows which of the two it is, so it writes its own `pump` with
# `external: Socket` or `external: None`; a union here would have every filter prove what it cannot but know.
External: TypeAlias = Any


class ClientKind(enum.StrEnum):
    """How a client came in."""

    SOCKS = "socks"
    HTTP = "http"
    CAPTURED = "captured"  # a program that knows of no proxy
    PUBLISHED = "published"  # from outside, to a published server
    FILTER = "filter"  # a filter of this firewall, in a session's name


# Everybody but filters themselves: a filter that opened a socket on hearing of one would never come to an end.
CLIENTS: Final = frozenset(ClientKind) - {ClientKind.FILTER}


class Scope(enum.StrEnum):
    """Connections that clients ask for are primary; those that a filter has promised are secondary."""

    PRIMARY = "primary"
    SECONDARY = "secondary"
    ANY = "any"

    def includes(self, is_secondary: bool) -> bool:
        return self is Scope.ANY or (self is Scope.SECONDARY) == is_secondary


@dataclass(frozen=True, slots=True)
class Interest:
    """What a filter wants to hear of. A protocol nobody is interested in never enters a filter path.

    `protocols` are names from the policy file (`http`), `tcp/443`, `tcp/8000-8999`, or ANY; the policy file's own
    `protocols` for this filter, when given, take their place. They do not narrow RESOLVE, which comes before any
    port is known. `events` adds ESTABLISHED for who wants it of every connection; terminating needs no
    registration, nor does ESTABLISHED for who has promised the connection. `clients` narrows by the way clients
    came in; sockets that filters make in a client's name (FILTER) are heard of only by who asks for them.
    A secondary connection is associated as the one that promised it; `scope` says which of both to hear of.
    """

    protocols: tuple[str, ...] = (ANY,)
    events: frozenset[EventKind] = frozenset({EventKind.CONNECT})
    clients: frozenset[ClientKind] = CLIENTS
    scope: Scope = Scope.PRIMARY

    @staticmethod
    def of(
        *protocols: str,
        events: Iterable[EventKind] = (EventKind.CONNECT,),
        clients: Iterable[ClientKind] = CLIENTS,
        scope: Scope = Scope.PRIMARY,
    ) -> Interest:
        """`Interest.of("http", "tcp/8080")`: the same with less punctuation."""
        return Interest(protocols or (ANY,), frozenset(events), frozenset(clients), scope)


class ApplicationFilter:
    """A plug-in. One instance lives as long as the policy names it unchanged; `settings` come from the policy file."""

    interest: ClassVar[Interest] = Interest()
    # A filter that makes its protocol work at all cannot be gone on without: `fail = "open"` is refused for it.
    defines_protocol: ClassVar[bool] = False

    def __init__(self, settings: Mapping[str, Any] | None = None) -> None:
        self.settings: Mapping[str, Any] = settings or {}

    async def start(self, firewall: Firewall) -> None:
        """Called once before the first event. Raising refuses the configuration that brought the filter."""

    async def stop(self) -> None:
        """Called once when the filter leaves, after the last event of its sessions."""

    def compile_settings(self, settings: Mapping[str, Any]) -> object:
        """What events shall carry as `settings` for a rule: the filter's own settings, overlaid by that rule's.

        Called once for each reload and each different set; unchanged ones keep the object. Raising refuses the policy.
        """
        return settings

    def session_filter(self, session: Session) -> SessionFilter:
        """The object that receives this session's events; called at the first event that concerns the filter."""
        raise NotImplementedError(f"{type(self).__name__} must define session_filter(session)")


class SessionFilter:
    """Receives one session's events. Override what you need; raising ends that one connection, closed.

    Handlers of one connection run one after another, but several connections of a session may be in their
    handlers at once.
    """

    async def on_connect(self, event: ConnectEvent) -> None:
        """A connection that policy allowed: attach, emulate, deny, or let it be."""

    async def on_udp_destination(self, event: UdpDestinationEvent) -> None:
        """A new peer of a UDP mapping: attach for it, deny it, or let it be."""

    async def on_bind(self, event: BindEvent) -> None:
        """A port on the client's behalf: deny, emulate, narrow, for UDP attach, or let it be."""

    async def on_listen(self, event: ListenEvent) -> None:
        """The firewall listens for the client: to be noted, not to be denied."""

    async def on_accept(self, event: AcceptEvent) -> None:
        """A peer has arrived: attach, deny, or let it be."""

    async def on_resolve(self, event: ResolveEvent) -> None:
        """A name or address, before and after it is looked up: set the answer, deny it, or let it be."""

    async def on_established(self, event: EstablishedEvent) -> None:
        """Both legs stand."""

    async def on_terminating(self, event: TerminatingEvent) -> None:
        """It is over."""


class DataFilter:
    """Pumps bytes between two sockets.

    Returning from `pump` means "I have seen enough": what follows flows past this filter, and once every filter
    of a chain has returned, the bytes leave Python for good. Raising means that both sides are closed, with the
    reason on record; raise `Refuse("my_reason")` to do so on purpose. Half-close is yours to pass on: `b""` from
    one socket means `await other.shutdown()`. Datagram filters use `recv_from` and `send_to`; the address is the
    far end on either side.
    """

    interest: ClassVar[Interest] = Interest()
    priority: ClassVar[Priority] = Priority.MIDDLE

    settings: Mapping[str, Any] = {}
    context: object = None

    async def pump(self, internal: Socket, external: External, connection: Connection) -> None:
        """Carry bytes both ways until there is nothing more to see. Must be defined.

        `external` is None for who emulates: this filter is the server then, and returning ends the connection.
        """
        raise NotImplementedError(f"{type(self).__name__} must define pump(internal, external, connection)")


class StreamFilter(DataFilter):
    """Two functions over chunks: what each returns is what goes on. Neighbours of this kind run in one task.

    Chunks have no boundaries of meaning: keep the tail of an unfinished line and return it later, at the latest
    from `client_end` or `server_end`. Call `seen_enough()` when the rest may pass unread.
    """

    connection: Connection
    finished: bool = False

    async def pump(self, internal: Socket, external: Socket, connection: Connection) -> None:
        """The engine runs stream filters itself, several in one task; calling this is a mistake."""
        raise NotImplementedError("stream filters are run by the engine")

    def start(self) -> None:
        """Called once before the first byte; `connection` is set."""

    def client_data(self, data: bytes) -> bytes:
        """Bytes on their way from the client to the server."""
        return data

    def server_data(self, data: bytes) -> bytes:
        """Bytes on their way from the server to the client."""
        return data

    def client_end(self) -> bytes:
        """The client will send no more: what is still kept."""
        return b""

    def server_end(self) -> bytes:
        """The server will send no more: what is still kept."""
        return b""

    def seen_enough(self) -> None:
        """Ask for no more chunks. Whatever the current call returns still goes out; keep nothing back."""
        self.finished = True
