"""Carries one control connection: reads both directions, and decides about each command and each reply.

    client ── Command ──▶ refused: answered here │ PORT, EPRT: a hole, and an address of ours │ else as it is ──▶ server
    client ◀── 227, 229: a hole, written anew │ else as it is; our own answers in their places ── Reply ◀── server

Two lanes, one task each. Only the client's lane ever waits for the other one: for the greeting before anything
reaches the server, for a transfer to be over before the next data connection, for the answer to AUTH.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, Final, NoReturn

from doorward.api import DataFilter, Priority, Refuse
from doorward.filters.ftp.dialogue import Dialogue, Pending, UnaskedReply
from doorward.filters.ftp.holes import BOUNCE, HoleRefused, Holes
from doorward.filters.ftp.settings import FtpSettings
from doorward.filters.ftp.words import NOT_READ, READING, TLS_NAMES, TRANSFERS, refusal
from doorward.wire.errors import ProtocolError
from doorward.wire.ftp import (
    Command,
    CommandReader,
    Endpoint,
    Reply,
    ReplyReader,
    eprt_command,
    extended_passive_reply,
    passive_reply,
    port_command,
    read_eprt,
    read_extended_passive,
    read_passive,
    read_port,
)

if TYPE_CHECKING:
    from doorward.api import Connection, Socket

ACTIVE: Final = ("PORT", "EPRT")
FILTER: Final = "ftp"  # the name under which notes stand on record

Alert = Callable[..., None]


class FtpControl(DataFilter):
    """One control connection. `context` is its `FtpSettings`."""

    priority: ClassVar[Priority] = Priority.NAT

    def __init__(self, alert: Alert) -> None:
        self._alert = alert

    async def pump(self, internal: Socket, external: Socket, connection: Connection) -> None:
        """Until both sides have ended, or the conversation is TLS. Raises Refuse for what is not FTP."""
        settings = self.context if isinstance(self.context, FtpSettings) else FtpSettings()
        await _Conversation(internal, external, connection, settings, self._alert).run()


class _Conversation:
    def __init__(
        self,
        internal: Socket,
        external: Socket,
        connection: Connection,
        settings: FtpSettings,
        alert: Alert,
    ) -> None:
        self._internal = internal
        self._external = external
        self._connection = connection
        self._settings = settings
        self._alert = alert
        self._holes = Holes(connection)
        self._dialogue = Dialogue()
        self._commands = CommandReader()
        self._replies = ReplyReader()
        self._telling = asyncio.Lock()
        self._changed = asyncio.Event()
        self._is_opaque = False
        self._is_server_over = False

    async def run(self) -> None:
        """Both lanes to their ends. Whatever ends it, no hole for a single transfer is left."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._client_lane())
                group.create_task(self._server_lane())
        finally:
            self._holes.close()

    async def _client_lane(self) -> None:
        while not self._is_opaque:
            try:
                command = self._commands.next()
            except ProtocolError as error:
                _refuse(error)
            if command is not None:
                await self._until(lambda: self._dialogue.greeted and not self._dialogue.is_full)
                await self._command(command)
            elif data := await self._internal.recv():
                self._commands.feed(data)
            else:
                await self._external.shutdown()
                return

    async def _server_lane(self) -> None:
        while not self._is_opaque:
            try:
                reply = self._replies.next()
            except ProtocolError as error:
                _refuse(error)
            if reply is not None:
                await self._reply(reply)
                self._changed.set()
            elif data := await self._external.recv():
                self._replies.feed(data)
            else:
                self._is_server_over = True
                self._changed.set()
                self._holes.close()
                await self._internal.shutdown()
                return

    async def _command(self, command: Command) -> None:
        """One command of the client's."""
        verb, settings = command.verb, self._settings
        if verb in NOT_READ or verb in settings.denied:
            await self._deny(502 if verb in NOT_READ else 550, "ftp_command_denied")
        elif settings.read_only and verb not in READING:
            await self._deny(550, "ftp_read_only")
        elif verb in ACTIVE:
            await self._active(command)
        elif verb == "AUTH":
            await self._auth(command)
        elif verb in ("PASV", "EPSV", "REIN"):
            await self._until(lambda: not self._dialogue.transferring)
            self._holes.close()
            await self._ask(command)
        else:
            if verb == "ABOR":
                self._holes.close()
            await self._ask(command)

    async def _active(self, command: Command) -> None:
        """The server is told an address of ours, or nothing."""
        try:
            endpoint = (read_port if command.verb == "PORT" else read_eprt)(command.argument)
        except ProtocolError as error:
            await self._deny(501, error.reason)
            return
        await self._until(lambda: not self._dialogue.transferring)
        try:
            told = await self._holes.active(endpoint)
        except HoleRefused as refused:
            self._report(refused.reason, command.verb, endpoint)
            await self._deny(500, refused.reason)
            return
        plain = command.verb == "PORT" and told.address.version == 4
        await self._ask((port_command if plain else eprt_command)(told))

    async def _auth(self, command: Command) -> None:
        """TLS on the control connection: passed on if the rule says so; nothing is read until the answer is here."""
        is_tls = command.argument is not None and command.argument.upper() in TLS_NAMES
        if not (is_tls and self._settings.passes_tls):
            await self._deny(534, "ftp_tls_refused")
            return
        await self._until(lambda: not self._dialogue.transferring)
        await self._ask(command)
        await self._until(lambda: not self._dialogue.waits_for("AUTH"))

    async def _reply(self, reply: Reply) -> None:
        """One reply of the server's."""
        try:
            pending, before = self._dialogue.replied(reply)
        except UnaskedReply:
            raise Refuse("ftp_unasked_reply", f"a {reply.code} that nobody asked for") from None
        if pending is not None:
            if reply.code in (227, 229):
                reply = self._passive(reply)
            elif reply.code == 234:
                self._begin_tls()
            elif reply.is_final:
                self._close_after(pending, reply)
        await self._tell(*before, reply, *self._dialogue.due())

    def _passive(self, reply: Reply) -> Reply:
        """A hole to where the server listens. The client reads what was judged, however the server had put it."""
        endpoint: Endpoint | None = None
        try:
            if reply.code == 227:
                endpoint = read_passive(reply.text)
                self._holes.passive(endpoint)
                return passive_reply(endpoint)
            endpoint = Endpoint(self._holes.server, read_extended_passive(reply.text))
            self._holes.passive(endpoint)
            return extended_passive_reply(endpoint.port)
        except (ProtocolError, HoleRefused) as error:
            self._note(error.reason)
            if endpoint is not None:
                self._report(error.reason, str(reply.code), endpoint)
            return refusal(425, error.reason)

    def _close_after(self, pending: Pending, reply: Reply) -> None:
        """A final reply: has a hole done its work?

        After a passive transfer it has: the client had connected before the server could be done. An active one may
        have been answered before the server's connection was accepted here; that one ends with its use. The hole of
        a transfer is the current one, because the next is not made before the transfer is over.
        """
        failed = reply.code >= 400
        if pending.hole is not None and failed:
            pending.hole.close()
        elif pending.verb in TRANSFERS and (current := self._holes.current) and (failed or current.passive):
            self._holes.close()

    def _begin_tls(self) -> None:
        """From now on the bytes are not ours to read. Nobody may have spoken ahead: that would be neither."""
        if self._commands.held or self._replies.held:
            raise Refuse("ftp_tls_early", "bytes came before both sides knew of TLS")
        self._holes.close()
        if self._settings.passive_ports is not None:
            self._holes.passive_range(*self._settings.passive_ports)
        self._is_opaque = True

    async def _ask(self, command: Command) -> None:
        """Pass a command on."""
        self._dialogue.asked(command.verb, self._holes.current if command.verb in ACTIVE else None)
        await self._external.send(command.wire)

    async def _deny(self, code: int, reason: str) -> None:
        """Answer in the server's place."""
        self._note(reason)
        await self._tell(*self._dialogue.answer(refusal(code, reason)))

    async def _tell(self, *replies: Reply) -> None:
        """Both lanes have things to say to the client; each says its own in one piece, in the order of the calls."""
        data = b"".join(reply.wire for reply in replies)
        if data:
            async with self._telling:
                await self._internal.send(data)

    async def _until(self, holds: Callable[[], bool]) -> None:
        """Wait for replies until it holds, or there will be no more; silence is the firewall's to end."""
        while not (holds() or self._is_server_over):
            self._changed.clear()
            await self._changed.wait()

    def _note(self, reason: str) -> None:
        self._connection.note(reason, FILTER)

    def _report(self, reason: str, told_by: str, named: Endpoint) -> None:
        """A third party's address is somebody's attack, or a machine that does not know its own: worth a look."""
        if reason == BOUNCE:
            where = f"{named.address} port {named.port}"
            self._alert(reason, connection=self._connection.id, told_by=told_by, named=where)


def _refuse(error: ProtocolError) -> NoReturn:
    raise Refuse(error.reason, error.detail) from error
