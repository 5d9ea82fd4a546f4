"""Carries what goes over the port that requests are sent to, in both directions.

    client ── request ──▶ refused: dropped, or answered here │ else a promise for its answer ──▶ server
    client ◀── answers from that very port, which some servers give ── server

Answers from a port of their own do not come this way: they are destinations of the association, and nobody reads
them.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, ClassVar, Final, NamedTuple

from doorward.api import DataFilter, OutOfResources, Priority
from doorward.filters.tftp.answers import Answers
from doorward.wire.errors import ProtocolError
from doorward.wire.tftp import BAD_PACKET, ErrorCode, Opcode, error_packet, opcode_of, read_request

if TYPE_CHECKING:
    from doorward.api import Connection, Socket

FILTER: Final = "tftp"  # the name under which notes stand on record
READ_ONLY: Final = "tftp_read_only"
UNASKED: Final = "tftp_unasked"
REQUESTS: Final = frozenset({Opcode.READ, Opcode.WRITE})


class TftpSettings(NamedTuple):
    """Settings of one rule. `read_only`: nothing is written on the server."""

    read_only: bool = False


class TftpRequests(DataFilter):
    """One client's requests to one server. `context` is its `TftpSettings`."""

    priority: ClassVar[Priority] = Priority.NAT

    def __init__(self, server: str) -> None:
        self._server = server

    async def pump(self, internal: Socket, external: Socket, connection: Connection) -> None:
        """Until the destination is forgotten. Whatever is refused is dropped and noted, and the rest goes on."""
        settings = self.context if isinstance(self.context, TftpSettings) else TftpSettings()
        await _Conversation(internal, external, connection, settings, self._server).run()


class _Conversation:
    def __init__(
        self, internal: Socket, external: Socket, connection: Connection, settings: TftpSettings, server: str
    ) -> None:
        self._internal = internal
        self._external = external
        self._connection = connection
        self._settings = settings
        self._answers = Answers(connection, server)
        self._has_asked = False

    async def run(self) -> None:
        """Both lanes to their ends. Whatever ends it, no promise is left."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._client_lane())
                group.create_task(self._server_lane())
        finally:
            self._answers.close()

    async def _client_lane(self) -> None:
        while True:
            packet, server = await self._internal.recv_from()
            try:
                self._judge(packet)
            except ProtocolError as error:
                self._note(error.reason)
                if error.reply:
                    await self._internal.send_to(error.reply, server)
            except OutOfResources as error:
                self._note(error.reason)  # the client will ask again
            else:
                await self._external.send_to(packet, server)

    async def _server_lane(self) -> None:
        while True:
            packet, server = await self._external.recv_from()
            try:
                is_answer = opcode_of(packet) not in REQUESTS
            except ProtocolError:
                is_answer = False
            if is_answer and self._has_asked:
                self._answers.came_otherwise()
                await self._internal.send_to(packet, server)
            else:
                self._note(UNASKED if is_answer else BAD_PACKET)

    def _judge(self, packet: bytes) -> None:
        """A packet of the client's; a request makes room for its answer. Raises ProtocolError, OutOfResources."""
        opcode = opcode_of(packet)
        if opcode in REQUESTS:
            if read_request(packet).writes:
                self._expect_writable()
            self._answers.expect(packet)
            self._has_asked = True
        elif opcode is Opcode.OPTIONS:
            raise ProtocolError(BAD_PACKET, "servers acknowledge options")
        elif not self._has_asked:
            raise ProtocolError(UNASKED, "a part of a transfer that nobody has asked for")
        elif opcode is Opcode.DATA:
            self._expect_writable()

    def _expect_writable(self) -> None:
        """Raises ProtocolError, with what to answer."""
        if self._settings.read_only:
            reply = error_packet(ErrorCode.ACCESS_VIOLATION, f"Refused by the firewall: {READ_ONLY}")
            raise ProtocolError(READ_ONLY, "something for the server to write", reply=reply)

    def _note(self, reason: str) -> None:
        self._connection.note(reason, FILTER)
