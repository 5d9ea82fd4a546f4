"""The service's side of the channel to the helper: one request after the other, each with a deadline.

A channel that is lost stays lost; whoever holds it makes a new one and loads the table again.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Final

from doorward.packetfilter.messages import (
    LENGTH,
    REPLY_BYTES_MAX,
    BadMessage,
    Change,
    Count,
    Counted,
    Flow,
    Load,
    Message,
    Noticed,
    Opening,
    Refused,
    Reply,
    packed,
    read_reply,
)
from doorward.packetfilter.model import Element, Table

CONNECT_TIMEOUT_S: Final = 2.0
LOAD_TIMEOUT_S: Final = 60.0
CHANGE_TIMEOUT_S: Final = 10.0
_READ_BYTES: Final = 65_536


class HelperGone(Exception):
    """Nobody answers, or not in time, or not in our words. The channel is closed."""


class HelperRefused(Exception):
    """The helper said no; `elements` are those that could not be opened, if it was only some of them."""

    def __init__(self, reason: str, elements: tuple[Element, ...] = ()) -> None:
        super().__init__(reason)
        self.elements = elements


class Client:
    """One connection to the helper; who asks while another is being answered waits for it."""

    def __init__(
        self, sock: socket.socket, on_flows: Callable[[tuple[Flow, ...]], None], on_end: Callable[[], None]
    ) -> None:
        """`sock` belongs to the client from here on. `on_end` is called once, if the channel was lost."""
        self._sock = sock
        self._on_flows = on_flows
        self._on_end = on_end
        self._buffer = bytearray()
        self._numbers = itertools.count(1)
        self._turn = asyncio.Lock()
        self._waiting: tuple[int, asyncio.Future[Reply]] | None = None
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(sock, self._read)
        self.closed = False

    @classmethod
    async def connect(
        cls, path: Path, on_flows: Callable[[tuple[Flow, ...]], None], on_end: Callable[[], None]
    ) -> Client:
        """Raises HelperGone."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await asyncio.get_running_loop().sock_connect(sock, os.fspath(path))
        except OSError as error:  # TimeoutError among them
            sock.close()
            raise HelperGone(
                f"no packet filter's helper answers on {path}: {error.strerror or 'too late'}"
            ) from None
        except BaseException:
            sock.close()
            raise
        return cls(sock, on_flows, on_end)

    async def load(self, table: Table, openings: tuple[Opening, ...]) -> None:
        """Put this table in force. Raises HelperRefused, HelperGone."""
        await self._ask(Load(next(self._numbers), table, openings), LOAD_TIMEOUT_S)

    async def change(self, opened: tuple[Opening, ...], closed: tuple[Element, ...]) -> None:
        """Open and close. Raises HelperRefused (with the elements that are not open), HelperGone."""
        await self._ask(Change(next(self._numbers), opened, closed), CHANGE_TIMEOUT_S)

    async def count(self) -> dict[str, int]:
        """Packets by counter. Raises HelperRefused, HelperGone."""
        reply = await self._ask(Count(next(self._numbers)), CHANGE_TIMEOUT_S)
        return reply.packets if isinstance(reply, Counted) else {}

    def close(self) -> None:
        """Idempotent; who waits for an answer hears of it. `on_end` is not called any more."""
        if self.closed:
            return
        self.closed = True
        self._loop.remove_reader(self._sock)
        self._sock.close()
        if self._waiting is not None and not self._waiting[1].done():
            self._waiting[1].set_exception(HelperGone("the channel to the packet filter's helper is closed"))

    async def _ask(self, request: Message, timeout_s: float) -> Reply:
        async with self._turn:
            reply = await self._ask_now(request, timeout_s)
        if isinstance(reply, Refused):
            raise HelperRefused(reply.reason, reply.elements)
        return reply

    async def _ask_now(self, request: Message, timeout_s: float) -> Reply:
        if self.closed:
            raise HelperGone("the packet filter's helper has gone")
        answer: asyncio.Future[Reply] = self._loop.create_future()
        self._waiting = request.number, answer
        try:
            async with asyncio.timeout(timeout_s):
                await self._loop.sock_sendall(self._sock, packed(request))
                return await answer
        except OSError:  # TimeoutError among them
            self._lose()  # half a request may be on its way
            raise HelperGone("the packet filter's helper does not answer") from None
        except asyncio.CancelledError:
            self._lose()
            raise
        finally:
            self._waiting = None
            if answer.done() and not answer.cancelled():
                answer.exception()  # it is told to nobody else

    def _read(self) -> None:
        try:
            data = self._sock.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._buffer += data
        try:
            if not data:
                raise BadMessage("the end")
            self._take()
        except BadMessage:
            self._lose()

    def _take(self) -> None:
        """Every whole message. Raises BadMessage."""
        while len(self._buffer) >= LENGTH.size and not self.closed:
            (length,) = LENGTH.unpack_from(self._buffer)
            if length > REPLY_BYTES_MAX:
                raise BadMessage(f"{length} bytes, more than {REPLY_BYTES_MAX}")
            if len(self._buffer) < LENGTH.size + length:
                return
            body = bytes(memoryview(self._buffer)[LENGTH.size : LENGTH.size + length])
            del self._buffer[: LENGTH.size + length]
            reply = read_reply(body)
            if isinstance(reply, Noticed):
                self._on_flows(reply.flows)
            elif self._waiting is None or self._waiting[0] != reply.number:
                raise BadMessage("an answer to nothing")
            elif not self._waiting[1].done():
                self._waiting[1].set_result(reply)

    def _lose(self) -> None:
        if not self.closed:
            self.close()
            self._on_end()
