"""BIND (RFC 1928 section 4, the SOCKS4 memo): we listen for one peer, and the client's own connection leads to it.

    request ─▶ first reply: where we listen ─▶ second reply: who has come ─▶ tunnel

While the client waits it has nothing to say: what it sends early is kept for the peer up to a limit, and then left in
the kernel. When it goes away the port closes at once.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from doorward.api.errors import DoorwardError, ReplyHint, Side, Terminating
from doorward.engine.outcome import End
from doorward.engine.ports.binding import Asked
from doorward.engine.target import Target, target_of
from doorward.net.farewell import farewell

if TYPE_CHECKING:
    from doorward.engine.connection import Connection
    from doorward.engine.ports.listening import Port
    from doorward.engine.session import Session
    from doorward.entry.socks import SocksServer
    from doorward.net.leg import Leg
    from doorward.wire.socks import Request

# What a client may say before its peer has come: as much as a window of TCP usually holds.
EARLY_BYTES_MAX: Final = 64 * 1024
ABANDONED: Final = End("abandoned", Side.INTERNAL)


class SocksBind:
    """One client that has us listen."""

    def __init__(self, server: SocksServer, early: bytes) -> None:
        """`early` came behind the request."""
        self._server = server
        self._client = server.client
        self._early = bytearray(early)
        self._scope: asyncio.Timeout | None = None
        self._let_go = asyncio.Event()  # nobody here reads the client's leg any more
        self._told = False

    async def serve(self, request: Request, session: Session) -> None:
        """To its end, or into the relay. Raises BadHost for a peer that nobody can be, DoorwardError."""
        asked = self._asked(request)
        engine = self._client.engine
        connection, port = await engine.arrivals.open_port(session, self._server.origin, asked, self._deliver)
        if port is None:
            assert connection.refusal is not None
            await farewell(self._client.leg, self._server.refused(connection.refusal.hint))
            return
        try:
            await self._first_reply(connection)
            await self._watch(connection, port)
            self._let_go.set()
            await port.over.wait()
            await self._part(connection)
        except BaseException:
            engine.ended(connection, ABANDONED)
            raise

    def _asked(self, request: Request) -> Asked:
        """Raises BadHost."""
        peer, wish, version = Target(None, None, 0), request.port, 4
        if request.host is not None:
            peer, wish = target_of(request.host, 0), 0
        elif request.address is not None:
            version = request.address.version
            if not request.address.is_unspecified:
                peer, wish = target_of(request.address, 0), 0
        return Asked(peer, wish, version, self._client.leg.local_name[0])

    async def _first_reply(self, connection: Connection) -> None:
        if connection.end is None:
            await self._client.tell(self._server.succeeded(connection.told_name))

    async def _watch(self, connection: Connection, port: Port) -> None:
        """Until the port is closed: somebody has come, or it is over. It is over if the client goes away."""
        port.on_close = self._stop
        self._scope = asyncio.timeout(None)
        try:
            async with self._scope:
                if not port.closed:
                    await self._read(self._client.leg)
        except TimeoutError:
            return  # the port is closed
        except DoorwardError:
            pass  # a reset is an end as well
        finally:
            self._scope = None
            self._client.leg.report_reset(None)
        self._client.engine.ended(connection, ABANDONED)

    async def _read(self, leg: Leg) -> None:
        """Until the client ends. Raises DoorwardError if it resets."""
        while len(self._early) < EARLY_BYTES_MAX:
            data = await leg.recv(EARLY_BYTES_MAX - len(self._early))
            if not data:
                return
            self._early += data
        reset: asyncio.Future[None] = asyncio.get_running_loop().create_future()  # the rest is for the peer

        def on_reset(error: DoorwardError) -> None:
            if not reset.done():
                reset.set_exception(error)

        leg.report_reset(on_reset)
        leg.look_for_reset()
        await reset

    def _stop(self) -> None:
        if self._scope is not None:
            self._scope.reschedule(0)

    async def _deliver(self, connection: Connection) -> Leg:
        """The peer has come: say so, and lead it to the client itself."""
        await self._let_go.wait()
        leg = self._client.leg
        if not leg.open:
            raise Terminating("the client went away", side=Side.INTERNAL)
        self._told = True
        await self._client.tell(self._server.succeeded(connection.external_peer_name))
        leg.put_back(bytes(self._early))
        return leg

    async def _part(self, connection: Connection) -> None:
        """The client has a tunnel, or nobody came through. Then it hears of it, if it is still there."""
        leg = self._client.leg
        if self._told or not leg.open:
            return
        timed_out = connection.end is not None and connection.end.how == "timed_out"
        hint = ReplyHint.TIMED_OUT if timed_out else ReplyHint.FAILED
        await farewell(leg, self._server.refused(hint))
