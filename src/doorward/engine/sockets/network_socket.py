"""The sockets that filters make for themselves, in a client's name or in the firewall's own.

Such a socket fulfils `Carrier`, so that TLS can be laid over it. It is a thin thing: what it holds stands in
`holding.py`, where it is found and ended when a filter forgets it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from doorward.api.errors import (
    AlreadyExists,
    BadArgument,
    DoorwardError,
    LinkError,
    NotConnected,
    NotSupported,
    Terminating,
)
from doorward.engine.at_work import AT_WORK
from doorward.engine.outcome import end_of
from doorward.engine.sockets.datagram_socket import DatagramHolding, DatagramSocket
from doorward.engine.sockets.holding import Holding
from doorward.engine.sockets.kept import CLOSED, RESET
from doorward.engine.sockets.socket_options import checked, expect_readable
from doorward.engine.target import checked_target
from doorward.net.carrier import StreamOnly
from doorward.net.leg import Leg
from doorward.net.reservation import Reservation

if TYPE_CHECKING:
    from doorward.api.contracts import TransportName
    from doorward.api.ip_filter import IpFilter
    from doorward.api.sockets import SocketName
    from doorward.engine.association import FilterEntry
    from doorward.engine.engine import Engine
    from doorward.engine.session import Session
    from doorward.net.carrier import Carrier


BACKLOG_MAX: Final = 1024


def network_socket(
    engine: Engine, session: Session, transport: TransportName
) -> NetworkSocket | DatagramSocket:
    """A socket of this session's: policy applies. Raises OutOfResources, BadArgument."""
    return _made(engine, session, transport, AT_WORK.get(), None)


def system_socket(
    engine: Engine, session: Session, transport: TransportName, made_by: FilterEntry
) -> NetworkSocket | DatagramSocket:
    """A socket of the firewall itself; `session` is the filter's own, with nobody in it. Raises as above."""
    return _made(engine, session, transport, made_by, made_by.name)


def _made(
    engine: Engine, session: Session, transport: str, made_by: FilterEntry | None, system: str | None
) -> NetworkSocket | DatagramSocket:
    if transport == "tcp":
        return NetworkSocket(Holding(engine, session, system, made_by))
    if transport == "udp":
        return DatagramSocket(DatagramHolding(engine, session, system, made_by))
    raise BadArgument(f"{transport!r} is neither tcp nor udp")


class NetworkSocket(StreamOnly):
    """See `api.NetworkSocket`, for TCP."""

    __slots__ = ("__weakref__", "_held", "received", "sent")

    def __init__(self, held: Holding) -> None:
        self.sent = 0
        self.received = 0
        self._held = held

    def __del__(self) -> None:
        self._held.let_go()

    @property
    def open(self) -> bool:
        return not self._held.over and self._held.carrier is not None and self._held.carrier.open

    @property
    def busy(self) -> bool:
        return self._held.carrier is not None and self._held.carrier.busy

    async def connect(self, host: str, port: int) -> None:
        """See the contract. After failure or cancellation nothing is left of it, and it may be tried again."""
        self._held.expect_fresh()
        await self._held.connect(checked_target(host, port))

    async def bind(self, address: str, port: int) -> None:
        """See the contract. The port is taken at once; policy and filters are asked when it connects or listens."""
        self._held.expect_fresh()
        if self._held.reservation is not None:
            raise AlreadyExists("the socket is bound")
        self._held.reservation = Reservation(address, port)

    async def listen(self, backlog: int = 128) -> None:
        """See the contract. At most 1,024 peers wait to be accepted; who finds no room is reset."""
        self._held.expect_fresh()
        if self._held.reservation is None:
            raise NotSupported("bind it first")
        if not 0 < backlog <= BACKLOG_MAX:
            raise BadArgument(f"a backlog of {backlog}; 1 to {BACKLOG_MAX} are possible")
        await self._held.listen(backlog)

    async def accept(self) -> NetworkSocket:
        """See the contract. A cancelled call has accepted nobody."""
        if self._held.backlog is None or self._held.connection is None:
            if self._held.over:
                raise Terminating("the socket is closed")
            raise NotSupported("the socket does not listen")
        return NetworkSocket(await self._held.backlog.get())

    async def recv(self, bytes_max: int | None = None) -> bytes:
        """See `api.Socket`."""
        carrier = self._carrier
        try:
            return await carrier.recv(bytes_max)
        except LinkError as error:
            self._held.broke(error)
            raise
        finally:
            self.received = carrier.received

    async def send(self, data: bytes | bytearray | memoryview) -> None:
        """See `api.Socket`."""
        carrier = self._carrier
        try:
            await carrier.send(data)
        except LinkError as error:
            self._held.broke(error)
            raise
        finally:
            self.sent = carrier.sent

    async def send_some(self, data: bytes | bytearray | memoryview) -> int:
        """See `Carrier`."""
        carrier = self._carrier
        try:
            return await carrier.send_some(data)
        except LinkError as error:
            self._held.broke(error)
            raise
        finally:
            self.sent = carrier.sent

    async def shutdown(self, *, abortive: bool = False) -> None:
        """See `api.Socket`."""
        if abortive:
            self.abort(Terminating("aborted"))
            return
        try:
            await self._carrier.shutdown()
        except LinkError as error:
            self._held.broke(error)
            raise

    async def close(self, *, abortive: bool = False) -> None:
        """See `api.Socket`. Whatever was bound, connected or listened for is over."""
        carrier = self._held.carrier
        try:
            if carrier is not None and not self._held.over:
                await carrier.close(abortive=abortive)
        finally:
            self.close_now(abortive=abortive)

    def close_now(self, *, abortive: bool = False) -> None:
        """See `Carrier`."""
        if self._held.carrier is not None:
            self._held.carrier.close_now(abortive=abortive)
        self._held.end(RESET if abortive else CLOSED)

    def abort(self, error: DoorwardError) -> None:
        """See `Carrier`."""
        if self._held.carrier is not None:
            self._held.carrier.abort(error)
        self._held.end(end_of(error) if isinstance(error, LinkError) else RESET)

    @property
    def socket_name(self) -> SocketName:
        """See the contract."""
        held = self._held
        if held.connection is not None and (held.carrier is not None or held.backlog is not None):
            return held.connection.external_socket_name
        if held.reservation is not None:
            return held.reservation.name
        raise NotConnected("the socket has no end of its own yet")

    @property
    def peer_name(self) -> SocketName:
        """See the contract."""
        if self._held.connection is None or self._held.carrier is None:
            raise NotConnected("the socket is not connected")
        return self._held.connection.external_peer_name

    def get_option(self, level: int, option: int) -> int:
        """See the contract. Where the wire is not ours alone (TLS to an upstream), what was set."""
        expect_readable((level, option))
        leg = self._leg
        if leg is not None:
            return leg.get_option(level, option)
        try:
            return self._held.options[level, option]
        except KeyError:
            raise NotConnected("the socket has no wire yet, and this was not set") from None

    def set_option(self, level: int, option: int, value: int) -> None:
        """See the contract."""
        checked((level, option), value)
        leg = self._leg
        if leg is not None:
            leg.set_option(level, option, value)
        self._held.options[level, option] = value

    @property
    def ip_filter(self) -> IpFilter | None:
        """See the contract."""
        found = self._held.ip_filter
        return None if found is None else found.clone()

    def set_ip_filter(self, ip_filter: IpFilter | None) -> None:
        """See the contract. A peer that is connected and now left out is reset."""
        if self._held.over:
            raise Terminating("the socket is closed")
        self._held.admit(None if ip_filter is None else ip_filter.clone())

    @property
    def _carrier(self) -> Carrier:
        """Raises NotConnected, NotSupported, Terminating."""
        held = self._held
        if held.carrier is None:
            if held.over:
                raise Terminating("the socket is closed")
            if held.backlog is not None:
                raise NotSupported("the socket listens: accept")
            raise NotConnected("the socket is not connected")
        return held.carrier

    @property
    def _leg(self) -> Leg | None:
        connection = self._held.connection
        external = None if connection is None else connection.external
        return external if isinstance(external, Leg) else None
