"""One HTTP client of the mixed port: request after request, each judged, until a tunnel opens or it ends.

Plain requests share the client's connection but not the server's: one outer connection is kept, and used again
only for the same destination and the same user, after policy was asked again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from doorward.api.errors import DoorwardError, OutOfResources
from doorward.api.filters import ClientKind
from doorward.engine.origin import Origin
from doorward.engine.outcome import End
from doorward.engine.session import Session
from doorward.engine.target import Target, target_of
from doorward.entry.client import Client
from doorward.entry.http.answers import answer
from doorward.entry.http.exchange import Exchange, Outcome
from doorward.entry.http.outer import Outer
from doorward.net.farewell import farewell
from doorward.policy.address import BadHost
from doorward.policy.model import UNKNOWN, Unknown
from doorward.wire.basic import parse_basic
from doorward.wire.errors import ProtocolError
from doorward.wire.http import CONNECT_ESTABLISHED, HttpError, Request, RequestReader, refusal
from doorward.wire.http.model import RequestEvent

if TYPE_CHECKING:
    from doorward.config.model import Limits
    from doorward.engine.connection import Connection
    from doorward.engine.outcome import Refusal


class HttpServer:
    """Serves one client."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.reader = RequestReader(self._limits.header_bytes_max)
        self.events: deque[RequestEvent] = deque()
        self._outer: Outer | None = None
        self._recorded = False  # the request at hand has a connection, and so a record of its own

    async def serve(self, first: bytes) -> None:
        """Until the client or its tunnel is gone. Raises nothing; cancellation leaves no outer connection behind."""
        try:
            await self._serve(first)
        except HttpError as error:
            self._record_failure(error.reason, error.detail)
            await farewell(self.client.leg, error.reply)
        except DoorwardError as error:
            if not self.reader.idle:
                self._record_failure(error.reason, error.detail)
        finally:
            self._drop_outer("internal")

    async def _serve(self, first: bytes) -> None:
        self.events += self.reader.receive(first)
        while (request := await self._next_request()) is not None:
            if request.is_connect:
                await self._tunnel(request)
                return
            if not await self._forward(request):
                return
            self._recorded = False
            self.events += self.reader.next_request()
        self.client.leg.close_now()  # in order: the last answer may still be on its way

    async def _next_request(self) -> Request | None:
        """The next request head; None when the client has ended, or was too slow and has been told."""
        limits = self._limits
        try:
            if self.reader.idle and not self.events and not await self._wait():
                return None
            if not self.events:
                async with asyncio.timeout(limits.handshake_timeout_s):
                    while not self.events:
                        if not await self._read():
                            self.reader.eof()
                            return None
        except TimeoutError:
            if not self.reader.idle:
                self._record_failure("handshake_timeout")
                text = f"the request's head did not come within {limits.handshake_timeout_s:g} s"
                await farewell(self.client.leg, refusal(408, "handshake_timeout", text))
            return None
        event = self.events.popleft()
        assert isinstance(event, Request)
        return event

    async def _wait(self) -> bool:
        """Between two requests, for the first byte of the next; False when there will be none."""
        lobby, leg = self.client.lobby, self.client.leg
        if lobby.closing:
            return False
        lobby.enter(leg)
        try:
            async with asyncio.timeout(self._limits.idle_timeout_s or None):
                return await self._read()
        finally:
            lobby.leave(leg)

    async def _read(self) -> bool:
        """Read once from the client into `events`; False at its end."""
        data = await self.client.leg.recv()
        if data:
            self.events += self.reader.receive(data)
        return bool(data)

    async def _tunnel(self, request: Request) -> None:
        origin = self._origin("http-connect")
        found = await self._identify(request, origin)
        if found is None:
            return
        session, user, target = found
        self._recorded = True
        connection = await self.client.engine.connect(session, target, origin, user=user)
        if connection.refusal is not None:
            await farewell(self.client.leg, answer(connection.refusal, target, request, keep_alive=False))
            return
        try:
            await self.client.tell(CONNECT_ESTABLISHED)
        except BaseException:
            self.client.gone(connection)
            raise
        self.client.leg.put_back(self.reader.switch())
        await self.client.engine.carry(connection, self.client.leg)

    async def _forward(self, request: Request) -> bool:
        """One plain request and its answer. False when the client's connection is done with."""
        origin = self._origin("http")
        found = await self._identify(request, origin)
        if found is None:
            return False
        session, user, target = found
        outer = self._reusable(session, target)
        kept = outer is not None
        self._recorded = True
        while True:
            if outer is None:
                connection = await self.client.engine.connect(session, target, origin, user=user)
                if connection.refusal is not None:
                    return await self._refuse(connection.refusal, target, request)
                outer = self._outer = Outer.of(self.client.engine, connection)
            exchange = Exchange(self, request, outer, kept=kept)
            outcome = await exchange.run()
            if outcome is not Outcome.STALE:
                return await self._conclude(outcome, exchange, outer)
            self._drop_outer("external")
            outer, kept = None, False

    async def _conclude(self, outcome: Outcome, exchange: Exchange, outer: Outer) -> bool:
        """What becomes of both connections after an exchange."""
        if outcome is Outcome.SWITCHED:
            self._outer = None
            await outer.switch(self.client.leg, self.reader.switch(), exchange.response_reader.switch())
            return False
        if not exchange.outer_reusable:
            self._drop_outer("external")
        if outcome is Outcome.COMPLETE:
            return True
        if exchange.last_words:
            await farewell(self.client.leg, exchange.last_words)
        elif outcome is Outcome.LAST:
            await farewell(self.client.leg, b"")
        return False

    async def _refuse(self, refused: Refusal, target: Target, request: Request) -> bool:
        """Tell the client; go on only if its request had no body that would have to be read first."""
        keep_alive = request.keep_alive and request.framing.kind == "none" and request.upgrade is None
        data = answer(refused, target, request, keep_alive=keep_alive)
        if not keep_alive:
            await farewell(self.client.leg, data)
            return False
        self.events.clear()
        await self.client.tell(data)
        return True

    async def _identify(
        self, request: Request, origin: Origin
    ) -> tuple[Session, str | Unknown | None, Target] | None:
        """Who asks for what; None if that was refused, which is then answered and on record."""
        user: str | Unknown | None = UNKNOWN
        groups = frozenset[str]()
        try:
            target = target_of(request.host, request.port)
            if request.proxy_authorization is not None:
                credentials = parse_basic(request.proxy_authorization)
                known = await self.client.authenticator.identify(credentials, self.client.address)
                if known is None:
                    name, text = credentials.username, "name and password do not fit"
                    await self._refuse_stranger(407, "deny", "bad_credentials", text, request, origin, name)
                    return None
                user, groups = known.name, known.groups
            return self.client.engine.sessions.get(self.client.address, user, groups), user, target
        except BadHost as error:
            await self._refuse_stranger(400, "deny", error.reason, error.detail, request, origin)
        except ProtocolError as error:
            await self._refuse_stranger(407, "deny", error.reason, error.detail, request, origin)
        except OutOfResources as error:
            await self._refuse_stranger(503, "fail", error.reason, error.detail, request, origin)
        return None

    async def _refuse_stranger(
        self,
        status: int,
        action: str,
        reason: str,
        text: str,
        request: Request,
        origin: Origin,
        user: str | None = None,
    ) -> None:
        """Refuse a request that gets no connection: on record, answered, and the last one of this client."""
        self.client.stranger(
            origin, action, reason, user=user, host=request.host, port=request.port, detail=text
        )
        await farewell(self.client.leg, refusal(status, reason, text, request=request))

    def _reusable(self, session: Session, target: Target) -> Outer | None:
        """The kept outer connection, if this request may use it."""
        outer = self._outer
        if outer is None:
            return None
        connection: Connection = outer.connection
        same = connection.session is session and connection.target == target
        if same and self.client.engine.still_allowed(connection):
            return outer
        self._drop_outer("internal")
        return None

    def _drop_outer(self, by: str) -> None:
        if self._outer is not None:
            self.client.engine.ended(self._outer.connection, End("closed", by))
            self._outer = None

    def _record_failure(self, reason: str, detail: str = "") -> None:
        """For a request that never got as far as a connection."""
        if not self._recorded:
            self.client.stranger(self._origin("http"), "fail", reason, detail=detail)

    def _origin(self, entry: str) -> Origin:
        application = "http" if entry == "http" else None
        return Origin(entry, ClientKind.HTTP, self.client.address, self.client.port, application)

    @property
    def _limits(self) -> Limits:
        return self.client.engine.ruling.limits
