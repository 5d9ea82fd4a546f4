"""Where a body ends: by length, by chunks, or with the connection (RFC 9112 6.3, 7.1).

Bodies are streamed. What belongs to the body by length is handed on as it came, not copied; chunks of one read
are joined into one piece. The chunked reader is ours and not llhttp's, because it must tell exactly which byte
the next message begins with, and because llhttp limits neither chunk extensions nor trailers.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple, Protocol

from doorward.wire.http.errors import HttpError
from doorward.wire.http.head import CRLF, Block, parse_trailers
from doorward.wire.http.model import End, Framing, Headers

CHUNK_LINE_BYTES_MAX: Final = 256  # size, extensions and CRLF; extensions are hardly ever seen
EXTENSION_BYTES_MAX: Final = (
    16_384  # all extensions of one body, so that they cannot be used to carry much for little
)
TRAILER_BYTES_MAX: Final = 8_192

# A size is at most 15 digits: below 2**60. White space before the semicolon or the CR is refused, as llhttp does.
_CHUNK_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})(;[\t\x20-\x7e\x80-\xff]*)?\r\n")

# RFC 9110 6.5.1: a trailer may not frame, route, authenticate or change how the content is read. Those that frame or
# route are refused here; the writer silently leaves out the rest.
_REFUSED_TRAILERS: Final = frozenset(
    {b"content-length", b"transfer-encoding", b"host", b"content_length", b"transfer_encoding"}
)


class Piece(NamedTuple):
    """What one read held: body bytes, the end if it was in there, and the bytes after the end."""

    data: bytes
    end: End | None
    rest: bytes


class Body(Protocol):
    """Reads one body."""

    def receive(self, data: bytes) -> Piece:
        """Take the next bytes. Not to be called again after an end. Raises HttpError."""
        ...

    def eof(self) -> End:
        """The connection ended. Raises HttpError `http_truncated` unless that is where the body ends."""
        ...


def body_reader(framing: Framing) -> Body | None:
    """The reader for a framing; None if there is nothing to read."""
    if framing.kind == "chunked":
        return ChunkedBody()
    if framing.kind == "close":
        return EndlessBody()
    return LengthBody(framing.length) if framing.length else None


class LengthBody:
    """Content-Length: counting."""

    def __init__(self, length: int) -> None:
        self._left = length

    def receive(self, data: bytes) -> Piece:
        left = self._left
        if len(data) < left:
            self._left = left - len(data)
            return Piece(data, None, b"")
        self._left = 0
        return Piece(data[:left], End(), data[left:])

    def eof(self) -> End:
        raise HttpError("http_truncated", f"the connection ended {self._left} bytes before the body did")


class EndlessBody:
    """A response that ends with its connection."""

    def receive(self, data: bytes) -> Piece:
        return Piece(data, None, b"")

    def eof(self) -> End:
        return End()


class ChunkedBody:
    """Chunks, then trailers.

    Raises HttpError: `http_chunk_size`, `http_chunk_line_too_long`, `http_chunk_extensions`, `http_chunk_end`,
    `http_trailer`, and those of `head.parse_trailers`.
    """

    def __init__(self) -> None:
        self._held = b""  # the beginning of a size line
        self._left = 0  # bytes of the current chunk's data and its CRLF that are still to come
        self._extension_bytes = 0
        self._trailers: Block | None = None

    def receive(self, data: bytes) -> Piece:
        if self._held:
            data = self._held + data
            self._held = b""
        pieces: list[bytes] = []
        at = 0
        while self._trailers is None:
            if self._left:
                at = self._take_chunk(data, at, pieces)
                if self._left:
                    return Piece(b"".join(pieces), None, b"")
            at = self._take_size(data, at)
            if self._held or at == len(data):
                break
        if self._trailers is None:
            return Piece(b"".join(pieces), None, b"")
        end, rest = self._take_trailers(data[at:])
        return Piece(b"".join(pieces), end, rest)

    def eof(self) -> End:
        raise HttpError("http_truncated", "the connection ended before the last chunk did")

    def _take_chunk(self, data: bytes, at: int, pieces: list[bytes]) -> int:
        """Move past the chunk's data and its CRLF, as far as they are there."""
        here = min(self._left, len(data) - at)
        body = min(here, max(0, self._left - 2))
        if body:
            pieces.append(data[at : at + body])
        tail = data[at + body : at + here]
        if tail and not CRLF[2 - self._left + body :].startswith(tail):
            raise HttpError("http_chunk_end", "a chunk's data is not followed by CRLF")
        self._left -= here
        return at + here

    def _take_size(self, data: bytes, at: int) -> int:
        """Read a size line, or hold its beginning until the rest comes."""
        end = data.find(b"\n", at, at + CHUNK_LINE_BYTES_MAX) + 1
        if not end:
            if len(data) - at >= CHUNK_LINE_BYTES_MAX:
                raise HttpError(
                    "http_chunk_line_too_long", f"over {CHUNK_LINE_BYTES_MAX} bytes before a chunk"
                )
            self._held = data[at:]
            return len(data)
        match = _CHUNK_LINE.fullmatch(data, at, end)
        if match is None:
            raise HttpError("http_chunk_size", f"{data[at:end][:100]!r} is not a chunk size")
        if match[2]:
            self._extension_bytes += len(match[2])
            if self._extension_bytes > EXTENSION_BYTES_MAX:
                raise HttpError(
                    "http_chunk_extensions", f"over {EXTENSION_BYTES_MAX} bytes of chunk extensions"
                )
        size = int(match[1], 16)
        if size:
            self._left = size + 2
        else:
            self._trailers = Block(TRAILER_BYTES_MAX)
            # With this CRLF in front, the block ends with an empty line whether or not there are trailers.
            self._trailers.receive(CRLF)
        return end

    def _take_trailers(self, data: bytes) -> tuple[End | None, bytes]:
        if self._trailers is None:
            raise AssertionError("trailers come after the last chunk")
        try:
            found = self._trailers.receive(data)
        except HttpError as error:
            if error.reason == "http_head_too_large":
                raise HttpError("http_trailer", f"over {TRAILER_BYTES_MAX} bytes of trailers") from None
            raise
        if found is None:
            return None, b""
        block, rest = found
        return End(_judge_trailers(block[2:])), rest


def _judge_trailers(block: bytes) -> Headers:
    if block == CRLF:
        return ()
    trailers = parse_trailers(block)
    for name, _ in trailers:
        if name.lower() in _REFUSED_TRAILERS:
            raise HttpError("http_trailer", f"{name!r} cannot stand in a trailer")
    return trailers
