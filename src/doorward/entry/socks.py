"""SOCKS4, SOCKS4a and SOCKS5 clients (RFC 1928, RFC 1929, the SOCKS4 memos): up to the request, and CONNECT.

BIND goes on in `socks_bind`, UDP ASSOCIATE in `socks_udp`.
"""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from doorward.api.errors import OutOfResources, ReplyHint, Terminating
from doorward.api.filters import ClientKind
from doorward.engine.origin import Origin
from doorward.engine.session import Session
from doorward.engine.target import Target, target_of
from doorward.entry.client import HANDSHAKE_BYTES, Client
from doorward.entry.socks_bind import SocksBind
from doorward.entry.socks_udp import associate, live
from doorward.net.farewell import farewell
from doorward.policy.address import BadHost
from doorward.policy.model import IPAddress
from doorward.wire.credentials import Credentials
from doorward.wire.socks import Command, Method, MethodsOffered, Request, ServerHandshake, Socks5Reply

if TYPE_CHECKING:
    from doorward.api.sockets import SocketName
    from doorward.engine.connection import Connection

# SOCKS can say less than we know; the record has the reason itself.
REPLIES: Final = {
    ReplyHint.NOT_ALLOWED: Socks5Reply.NOT_ALLOWED,
    ReplyHint.NEEDS_USER: Socks5Reply.NOT_ALLOWED,
    ReplyHint.NAME_NOT_FOUND: Socks5Reply.HOST_UNREACHABLE,
    ReplyHint.REFUSED: Socks5Reply.CONNECTION_REFUSED,
    ReplyHint.NETWORK_UNREACHABLE: Socks5Reply.NETWORK_UNREACHABLE,
    ReplyHint.HOST_UNREACHABLE: Socks5Reply.HOST_UNREACHABLE,
    ReplyHint.TIMED_OUT: Socks5Reply.TTL_EXPIRED,
    ReplyHint.ADDRESS_IN_USE: Socks5Reply.GENERAL_FAILURE,
    ReplyHint.BUSY: Socks5Reply.GENERAL_FAILURE,
    ReplyHint.FAILED: Socks5Reply.GENERAL_FAILURE,
}


@lru_cache(maxsize=256)
def _address(text: str) -> IPAddress:
    """One of our own addresses; there are few, and each reply names one."""
    return ipaddress.ip_address(text)


class SocksServer:
    """One client's handshake, up to the request and its answer."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self._handshake = ServerHandshake()
        self._username: str | None = None

    @property
    def origin(self) -> Origin:
        """Where this client comes from, as far as it is known."""
        version = self._handshake.version
        return Origin(f"socks{version or ''}", ClientKind.SOCKS, self.client.address, self.client.port)

    async def receive_request(self, first: bytes) -> tuple[Request, Session] | None:
        """Everything up to the request. None if the client was refused, which is then done and on record.

        Raises ProtocolError for what is not SOCKS, DoorwardError when the client goes away.
        """
        client, user, groups = self.client, None, frozenset[str]()
        event = await self._next(first)
        if isinstance(event, MethodsOffered):
            method = Method.NO_AUTHENTICATION if client.answered else self._choose(event.methods)
            if method is Method.NO_ACCEPTABLE:
                await self._refuse_stranger("user_needed", self._handshake.select_method(method))
                return None
            answer = self._handshake.select_method(method)
            if not client.answered:
                await client.leg.send(answer)
            event = await self._next(b"")
        if isinstance(event, Credentials):
            self._username = event.username
            try:
                known = await client.authenticator.identify(event, client.address)
            except OutOfResources as error:
                await self._no_room(error, self._handshake.credentials_reply(False))
                return None
            if known is None:
                await self._refuse_stranger("bad_credentials", self._handshake.credentials_reply(False))
                return None
            user, groups = known.name, known.groups
            await client.leg.send(self._handshake.credentials_reply(True))
            event = await self._next(b"")
        assert isinstance(event, Request)
        try:
            return event, client.engine.sessions.get(client.address, user, groups)
        except OutOfResources as error:
            await self._no_room(error, self._reply(Socks5Reply.GENERAL_FAILURE))
            return None

    async def answer(self, request: Request, session: Session) -> Connection | None:
        """Do what is asked, or refuse it. The connection it made has been answered to the client."""
        if request.command is Command.UDP_ASSOCIATE:
            await self._associate(request, session)
            return None
        try:
            if request.command is Command.BIND:
                await SocksBind(self, self._handshake.trailing).serve(request, session)
                return None
            target = self._target(request)
        except BadHost as error:
            reply = self._reply(Socks5Reply.NOT_ALLOWED)
            await self._refuse_stranger(error.reason, reply, error.detail, request)
            return None
        connection = await self.client.engine.connect(session, target, self.origin, user=session.user)
        if connection.refusal is not None:
            await farewell(self.client.leg, self._reply(REPLIES[connection.refusal.hint]))
            return None
        await self._succeed(connection)
        return connection

    async def _associate(self, request: Request, session: Session) -> None:
        """UDP, for as long as the client's connection stands. Raises DoorwardError if it goes before its answer."""
        connection, side = await associate(self.client, session, self.origin, request)
        if side is None:
            assert connection.refusal is not None
            await farewell(self.client.leg, self._reply(REPLIES[connection.refusal.hint]))
            return
        try:
            host, port = side.socket.name
            await self.client.tell(self._handshake.reply(Socks5Reply.SUCCEEDED, _address(host), port))
        except BaseException:
            self.client.gone(connection)
            raise
        await live(self.client, connection)

    async def _succeed(self, connection: Connection) -> None:
        try:
            host, port = connection.told_name
            reply = self._handshake.reply(Socks5Reply.SUCCEEDED, _address(host), port)
            await self.client.leg.send(reply)
        except BaseException:
            self.client.gone(connection)
            raise
        self.client.leg.put_back(self._handshake.trailing)

    def succeeded(self, name: SocketName) -> bytes:
        """The reply that names where we listen, or who has come."""
        return self._handshake.reply(Socks5Reply.SUCCEEDED, _address(name[0].partition("%")[0]), name[1])

    def refused(self, hint: ReplyHint) -> bytes:
        """The reply to what cannot be, as far as SOCKS has a word for it."""
        return self._reply(REPLIES[hint])

    def _target(self, request: Request) -> Target:
        host = request.host if request.host is not None else request.address
        assert host is not None
        return target_of(host, request.port)

    def _choose(self, methods: bytes) -> Method:
        """Ask for a password if any rule names users and the client can give one, or if it offers nothing else."""
        names_users = self.client.engine.ruling.policy.names_users
        if Method.USERNAME_PASSWORD in methods and (names_users or Method.NO_AUTHENTICATION not in methods):
            return Method.USERNAME_PASSWORD
        return Method.NO_AUTHENTICATION if Method.NO_AUTHENTICATION in methods else Method.NO_ACCEPTABLE

    def _reply(self, code: Socks5Reply) -> bytes:
        return self._handshake.reply(code)

    async def _next(self, data: bytes) -> MethodsOffered | Credentials | Request:
        """The next event; what came with the last one is looked at first."""
        event = self._handshake.receive(data)
        while event is None:
            data = await self.client.leg.recv(HANDSHAKE_BYTES)
            if not data:
                raise Terminating(
                    "the client ended in the middle of its handshake", side=self.client.leg.side
                )
            event = self._handshake.receive(data)
        return event

    async def _no_room(self, error: OutOfResources, reply: bytes) -> None:
        """A table of ours is full: the client is told in its protocol, and the record says why."""
        self.client.stranger(self.origin, "fail", error.reason, user=self._username, detail=error.detail)
        await farewell(self.client.leg, reply)

    async def _refuse_stranger(
        self, reason: str, reply: bytes, detail: str = "", request: Request | None = None
    ) -> None:
        host = None if request is None else request.host or str(request.address)
        port = 0 if request is None else request.port
        self.client.stranger(
            self.origin, "deny", reason, user=self._username, host=host, port=port, detail=detail
        )
        await farewell(self.client.leg, reply)
