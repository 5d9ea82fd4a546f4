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
from typing import TYPE_CHECKING, Any, ClassVar, Final

from doorward.api.contracts import Priority
from doorward.api.events import EventKind

if TYPE_CHECKING:
    from doorward.api.contracts import Connection, Firewall, Session, Socket
    from doorward.api.events import ConnectEvent, EstablishedEvent, TerminatingEvent

ANY: Final = "any"


class ClientKind(enum.StrEnum):
    """How a client came in."""

    SOCKS = "socks"
    HTTP = "http"


@dataclass(frozen=True, slots=True)
class Interest:
    """What a filter wants to hear of. A protocol nobody is interested in never enters a filter path.

    `protocols` are names from the policy file (`http`), `tcp/443`, `tcp/8000-8999`, or ANY; the policy file's own
    `protocols` for this filter, when given, take their place. `events` adds ESTABLISHED for who wants it;
    terminating needs no registration. `clients` narrows by the way clients came in.
    """

    protocols: tuple[str, ...] = (ANY,)
    events: frozenset[EventKind] = frozenset({EventKind.CONNECT})
    clients: frozenset[ClientKind] = frozenset(ClientKind)

    @staticmethod
    def of(
        *protocols: str,
        events: Iterable[EventKind] = (EventKind.CONNECT,),
        clients: Iterable[ClientKind] = tuple(ClientKind),
    ) -> Interest:
        """`Interest.of("http", "tcp/8080")`: the same with less punctuation."""
        return Interest(protocols or (ANY,), frozenset(events), frozenset(clients))


class ApplicationFilter:
    """A plug-in. One instance lives as long as the policy names it unchanged; `settings` come from the policy file."""

    interest: ClassVar[Interest] = Interest()

    def __init__(self, settings: Mapping[str, Any] | None = None) -> None:
        self.settings: Mapping[str, Any] = settings or {}

    async def start(self, firewall: Firewall) -> None:
        """Called once before the first event. Raising refuses the configuration that brought the filter."""

    async def stop(self) -> None:
        """Called once when the filter leaves, after the last event of its sessions."""

    def session_filter(self, session: Session) -> SessionFilter:
        """The object that receives this session's events; called at the first event that concerns the filter."""
        raise NotImplementedError(f"{type(self).__name__} must define session_filter(session)")


class SessionFilter:
    """Receives one session's events. Override what you need; raising ends that one connection, closed.

    Handlers of one connection run one after another, but several connections of a session may be in their
    handlers at once.
    """

    async def on_connect(self, event: ConnectEvent) -> None:
        """A connection that policy allowed: attach, deny, or let it be."""

    async def on_established(self, event: EstablishedEvent) -> None:
        """The outer leg stands."""

    async def on_terminating(self, event: TerminatingEvent) -> None:
        """It is over."""


class DataFilter:
    """Pumps bytes between two sockets.

    Returning from `pump` means "I have seen enough": what follows flows past this filter, and once every filter
    of a chain has returned, the bytes leave Python for good. Raising means that both sides are closed, with the
    reason on record; raise `Refuse("my_reason")` to do so on purpose. Half-close is yours to pass on: `b""` from
    one socket means `await other.shutdown()`.
    """

    interest: ClassVar[Interest] = Interest()
    priority: ClassVar[Priority] = Priority.MIDDLE

    settings: Mapping[str, Any] = {}
    context: object = None

    async def pump(self, internal: Socket, external: Socket, connection: Connection) -> None:
        """Carry bytes both ways until there is nothing more to see. Must be defined."""
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
