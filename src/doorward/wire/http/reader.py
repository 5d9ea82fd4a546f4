"""The client's side of the conversation: bytes in, requests out, one at a time.

The reader hands out one request and then waits until the caller says what becomes of it: `next_request`, or
`switch` for CONNECT and WebSocket. Bytes that a client sends ahead are held meanwhile, not read: a refused
request is the last one that was looked at. No sockets here, no clock, no policy.
"""

from __future__ import annotations

import enum
from typing import Final

from doorward.wire.http.body import Body, body_reader
from doorward.wire.http.errors import HttpError
from doorward.wire.http.head import TOKEN_BYTES, Block
from doorward.wire.http.model import HEAD_BYTES_MAX, Data, End, Request, RequestEvent
from doorward.wire.http.refusal import refusal
from doorward.wire.http.request import read_request

HELD_BYTES_MAX: Final = 1_048_576  # sent ahead; far over one read, so reaching it is the caller's mistake


class _State(enum.Enum):
    HEAD = enum.auto()
    BODY = enum.auto()
    WAITING = enum.auto()  # for next_request or switch
    OVER = enum.auto()  # failed or switched


class RequestReader:
    """Reads one client connection.

    Events of a message: one `Request`, any number of `Data`, one `End`; CONNECT has neither Data nor End,
    because what follows it is not HTTP. After a request the caller stops reading the socket while `paused`, and
    then calls exactly one of `next_request` and `switch`. To refuse a request is to send a refusal and to call
    neither, or, once the body has ended, `next_request` to keep the connection.

    Any HttpError is final: nothing that came with it is acted on, and the reader takes nothing more. Its
    `reply` may be sent if no part of a response to the same request was sent before; then close.
    """

    def __init__(self, head_bytes_max: int = HEAD_BYTES_MAX) -> None:
        self._head_bytes_max = head_bytes_max
        self._state = _State.HEAD
        self._block = self._new_block()
        self._body: Body | None = None
        self._held = b""
        self._request: Request | None = None

    @property
    def paused(self) -> bool:
        """Bytes are held that wait for the caller's word: read no more from the socket until it is given."""
        return bool(self._held)

    @property
    def idle(self) -> bool:
        """Between two requests: nothing of the next one has come."""
        return self._state is _State.HEAD and self._block.is_empty

    def receive(self, data: bytes) -> list[RequestEvent]:
        """Take what the client sent, at most 1 MiB at once.

        Raises HttpError; see `request` and `body` for the reasons.
        """
        if self._state is _State.OVER:
            raise AssertionError("the reader has failed or was switched, and takes nothing more")
        try:
            return self._receive(data)
        except HttpError as error:
            self._state = _State.OVER
            error.reply = refusal(error.status, error.reason, error.detail, request=self._request)
            raise

    def next_request(self) -> list[RequestEvent]:
        """The request is dealt with; go on with the next one, of which some may be held.

        Raises HttpError as `receive`.
        """
        request = self._request
        if self._state is not _State.WAITING or request is None or request.is_connect:
            raise AssertionError(
                "only a request that has ended, and that is not CONNECT, is followed by another"
            )
        held, self._held = self._held, b""
        self._request = None
        self._block = self._new_block()
        self._state = _State.HEAD
        return self.receive(held) if held else []

    def switch(self) -> bytes:
        """The connection is HTTP no more: CONNECT or WebSocket was accepted. Returns what the client sent ahead."""
        request = self._request
        if (
            self._state is not _State.WAITING
            or request is None
            or not (request.is_connect or request.upgrade)
        ):
            raise AssertionError("only after CONNECT or an upgrade does a connection stop being HTTP")
        self._state = _State.OVER
        held, self._held = self._held, b""
        return held

    def eof(self) -> None:
        """The client will send nothing more. Raises HttpError `http_truncated` in the middle of a request.

        A request that is complete may still be answered (half-close).
        """
        cut_off = self._state is _State.BODY or (self._state is _State.HEAD and not self._block.is_empty)
        if cut_off:
            self._state = _State.OVER
            raise HttpError("http_truncated", "the client's connection ended in the middle of a request")

    def _receive(self, data: bytes) -> list[RequestEvent]:
        events: list[RequestEvent] = []
        if self._state is _State.HEAD:
            found = self._block.receive(data)
            if found is None:
                return events
            block, data = found
            events.append(self._begin(block))
        if self._state is _State.BODY and self._body is not None and data:
            piece = self._body.receive(data)
            if piece.data:
                events.append(Data(piece.data))
            data = piece.rest
            if piece.end is not None:
                events.append(piece.end)
                self._state = _State.WAITING
        elif self._state is _State.WAITING and events and not self._is_connect():
            events.append(End())
        if self._state is _State.WAITING:
            self._hold(data)
        return events

    def _begin(self, block: bytes) -> Request:
        request = read_request(block)
        self._request = request
        self._body = body_reader(request.framing)
        self._state = _State.WAITING if self._body is None else _State.BODY
        return request

    def _is_connect(self) -> bool:
        return self._request is not None and self._request.is_connect

    def _hold(self, data: bytes) -> None:
        if len(self._held) + len(data) > HELD_BYTES_MAX:
            raise HttpError("http_sent_ahead", f"over {HELD_BYTES_MAX} bytes were sent ahead of an answer")
        self._held += data

    def _new_block(self) -> Block:
        return Block(self._head_bytes_max, TOKEN_BYTES, skip_crlf=True)
