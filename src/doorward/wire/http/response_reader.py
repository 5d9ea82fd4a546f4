"""The server's side of the conversation: bytes in, the answer to one request out.

It knows the request, because a response cannot be framed without it (RFC 9112 6.3). Interim answers that the client
did not ask for or would not understand are left out. No sockets here, no clock, no policy.
"""

from __future__ import annotations

from typing import Final

from doorward.wire.http.body import Body, body_reader
from doorward.wire.http.errors import HttpError
from doorward.wire.http.head import Block
from doorward.wire.http.model import HEAD_BYTES_MAX, Data, End, Request, Response, ResponseEvent
from doorward.wire.http.refusal import refusal
from doorward.wire.http.response import read_response

INTERIM_MAX: Final = 16  # answers before the answer; curl and browsers see one or two


class ResponseReader:
    """Reads the answer to one request; make one for each request on a connection.

    Events: any number of interim `Response` (100 only if the client expects it, others only for HTTP/1.1
    clients), one final `Response`, any number of `Data`, one `End`. After status 101 there is no End: take the
    rest with `switch`.

    Any HttpError is final: the server's connection must be closed. Its `status` is 502. Its `reply` is a
    complete answer for the client while no final response head was handed out, and empty after that: then the
    client's connection can only be closed.
    """

    def __init__(self, request: Request, head_bytes_max: int = HEAD_BYTES_MAX) -> None:
        self._request = request
        self._head_bytes_max = head_bytes_max
        self._block = Block(head_bytes_max, b"H")
        self._interim = 0
        self._final: Response | None = None
        self._body: Body | None = None
        self._ended = False
        self._failed = False
        self._surplus = b""

    @property
    def ended(self) -> bool:
        """The answer is complete."""
        return self._ended

    @property
    def reusable(self) -> bool:
        """The server's connection may carry another request, as far as the server is concerned.

        Not if it sent more than it should: those bytes would be read as the answer to the next request.
        """
        final = self._final
        return self._ended and final is not None and final.keep_alive and not self._surplus

    def receive(self, data: bytes) -> list[ResponseEvent]:
        """Take what the server sent.

        Raises HttpError; see `response` and `body` for the reasons, and `http_interim`.
        """
        if self._failed:
            raise AssertionError("the reader has failed and takes nothing more")
        events: list[ResponseEvent] = []
        try:
            self._receive(data, events)
        except HttpError as error:
            # A final head in `events` was not handed out, so the client can still be told.
            raise self._fail(error, answered=self._final is not None and self._final not in events) from None
        return events

    def eof(self) -> list[ResponseEvent]:
        """The server will send nothing more. Raises HttpError `http_no_response` or `http_truncated`."""
        if self._ended or self._switched():
            return []
        try:
            if self._body is None:
                empty = self._block.is_empty
                detail = "the server closed the connection without an answer"
                raise HttpError("http_no_response" if empty else "http_truncated", detail)
            end = self._body.eof()
        except HttpError as error:
            raise self._fail(error, answered=self._final is not None) from None
        self._ended = True
        return [end]

    def switch(self) -> bytes:
        """After status 101: what the server sent behind it. The reader is done."""
        if not self._switched():
            raise AssertionError("the server has not switched protocols")
        self._failed = True
        surplus, self._surplus = self._surplus, b""
        return surplus

    def _receive(self, data: bytes, events: list[ResponseEvent]) -> None:
        while self._final is None and data:
            found = self._block.receive(data)
            if found is None:
                return
            block, data = found
            self._take_head(read_response(block, self._request), events)
        if self._body is not None and not self._ended:
            if not data:
                return
            piece = self._body.receive(data)
            data = piece.rest
            if piece.data:
                events.append(Data(piece.data))
            if piece.end is not None:
                self._ended = True
                events.append(piece.end)
        if data:
            # After 101 every byte counts; after an end it is enough to know that there was one.
            self._surplus = self._surplus + data if self._switched() else data[:1]

    def _take_head(self, response: Response, events: list[ResponseEvent]) -> None:
        if response.is_interim:
            self._interim += 1
            if self._interim > INTERIM_MAX:
                raise HttpError("http_interim", f"over {INTERIM_MAX} interim answers")
            if self._is_wanted(response):
                events.append(response)
            self._block = Block(self._head_bytes_max, b"H")
            return
        self._final = response
        events.append(response)
        self._body = body_reader(response.framing)
        if self._body is None and response.status != 101:
            self._ended = True
            events.append(End())

    def _is_wanted(self, response: Response) -> bool:
        if response.status == 100:
            return self._request.expect_continue
        return self._request.version == "1.1"

    def _switched(self) -> bool:
        return self._final is not None and self._final.status == 101

    def _fail(self, error: HttpError, *, answered: bool) -> HttpError:
        self._failed = True
        error.status = 502
        error.reply = b"" if answered else refusal(502, error.reason, error.detail, request=self._request)
        return error
