"""From bytes to a head: first line, header fields, nothing judged yet but the grammar (RFC 9112 2 to 5).

A head is seen whole, up to its empty line, before anything acts on it. The bytes are first checked raw, because
a parser normalises away what smuggling is made of: bare LF or CR, control characters, folded lines. Then llhttp
(httptools) reads them, and what it makes of the first line must be that line, byte for byte. llhttp alone
accepts two spaces, HTTP/0.9 and more. This module does not know whether it reads a client or a server: every
error carries a client's status.
"""

from __future__ import annotations

from typing import Final, NamedTuple, Protocol

import httptools

from doorward.wire.http.errors import HttpError
from doorward.wire.http.model import HEAD_BYTES_MAX, Headers

LINE_BYTES_MAX: Final = 16_384  # one header line or request line; common servers stop at 8,192
HEADERS_MAX: Final = 100  # Apache's default

CRLF: Final = b"\r\n"
BLOCK_END: Final = b"\r\n\r\n"
_LEGAL: Final = b"\t\r\n" + bytes(range(0x20, 0x7F)) + bytes(range(0x80, 0x100))
TOKEN_BYTES: Final = b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

# Fields whose values decide something here. All others are only carried.
_WATCHED: Final = frozenset({
    b"host", b"content-length", b"transfer-encoding", b"connection", b"proxy-connection", b"upgrade", b"expect",
    b"proxy-authorization", b"content_length", b"transfer_encoding",
})  # fmt: skip


class Head(NamedTuple):
    """`fields` holds the watched fields only: name in lower case, values in order.

    `complaint` is what llhttp said after the last header, about framing; whoever judges the framing must refuse
    the message as well, or raise the complaint.
    """

    first_line: bytes
    method: bytes
    target: bytes
    version: str
    headers: Headers
    fields: dict[bytes, list[bytes]]
    complaint: str | None = None


class Block:
    """Collects bytes until the empty line, at most `bytes_max` of them, the empty line included.

    `first` are the bytes a block may begin with (empty: any); one CRLF before it is skipped if `skip_crlf`, as
    RFC 9112 2.2 asks of servers. A bare LF is refused as soon as it is seen: such a block might never end.
    """

    def __init__(
        self, bytes_max: int = HEAD_BYTES_MAX, first: bytes = b"", *, skip_crlf: bool = False
    ) -> None:
        self._bytes_max = bytes_max
        self._first = first
        self._skip_crlf = skip_crlf
        self._held = bytearray()
        self._scanned = 0

    @property
    def is_empty(self) -> bool:
        return not self._held

    def receive(self, data: bytes) -> tuple[bytes, bytes] | None:
        """The whole block and what follows it; None while more is needed.

        Raises HttpError: `http_malformed`, `http_bare_lf`, `http_head_too_large`.
        """
        if not self._held and data and (not self._first or data[0] in self._first):
            end = data.find(BLOCK_END, 0, self._bytes_max) + 4
            if end > 3 and data.count(b"\n", 0, end) == data.count(CRLF, 0, end):
                return data[:end], data[end:]
        self._held += data
        return self._search()

    def _search(self) -> tuple[bytes, bytes] | None:
        held = self._held
        if self._skip_crlf and held.startswith(CRLF):
            del held[:2]
            self._skip_crlf = False
        if not held or (self._skip_crlf and held == b"\r"):
            return None
        if self._first and held[0] not in self._first:
            raise HttpError("http_malformed", f"a message cannot begin with byte 0x{held[0]:02x}")
        start = max(0, self._scanned - 3)
        end = held.find(BLOCK_END, start, self._bytes_max) + 4
        self._scanned = end if end > 3 else min(len(held), self._bytes_max)
        if held.count(b"\n", start, self._scanned) != held.count(CRLF, max(0, start - 1), self._scanned):
            raise HttpError("http_bare_lf", "a line ends with LF alone")
        if end > 3:
            block, rest = bytes(held[:end]), bytes(held[end:])
            held.clear()
            self._scanned = 0
            return block, rest
        if len(held) >= self._bytes_max:
            raise HttpError("http_head_too_large", f"no end within {self._bytes_max} bytes", status=431)
        return None


def check_lines(block: bytes) -> None:
    """Refuse what a parser might normalise away. `block` consists of whole lines.

    Raises HttpError: `http_bare_lf`, `http_bare_cr`, `http_control_character`, `http_folded_header`,
    `http_line_too_long`, `http_too_many_headers`.
    """
    lines = block.count(CRLF)
    if block.count(b"\n") != lines:
        raise HttpError("http_bare_lf", "a line ends with LF alone")
    if block.count(b"\r") != lines:
        raise HttpError("http_bare_cr", "a CR stands alone")
    if block.translate(None, _LEGAL):
        raise HttpError("http_control_character", "a control character stands in the head")
    if b"\n " in block or b"\n\t" in block:
        raise HttpError("http_folded_header", "a header is continued on the next line")
    if lines > HEADERS_MAX + 2:
        raise HttpError(
            "http_too_many_headers", f"{lines - 2} headers, the limit is {HEADERS_MAX}", status=431
        )
    if len(block) > LINE_BYTES_MAX:
        _check_line_lengths(block)


def _check_line_lengths(block: bytes) -> None:
    lines = block.split(CRLF)
    if len(lines[0]) > LINE_BYTES_MAX:
        raise HttpError("http_target_too_long", f"the first line is over {LINE_BYTES_MAX} bytes", status=414)
    if max(map(len, lines)) > LINE_BYTES_MAX:
        raise HttpError("http_line_too_long", f"a header line is over {LINE_BYTES_MAX} bytes", status=431)


def parse_request_head(block: bytes) -> Head:
    """Read a request head. Raises HttpError: those of `check_lines`, and those of the diagnosis below."""
    check_lines(block)
    sink = _Sink()
    parser = httptools.HttpRequestParser(sink)
    complaint = _feed(parser, sink, block)
    return Head(
        block[: block.index(CRLF)],
        parser.get_method() if sink.complete else b"",
        sink.target,
        parser.get_http_version(),
        tuple(sink.headers),
        sink.fields,
        complaint,
    )


def parse_response_head(block: bytes) -> Head:
    """Read a response head; `method` and `target` stay empty."""
    check_lines(block)
    sink = _Sink()
    parser = httptools.HttpResponseParser(sink)
    complaint = _feed(parser, sink, block)
    first_line = block[: block.index(CRLF)]
    return Head(first_line, b"", b"", parser.get_http_version(), tuple(sink.headers), sink.fields, complaint)


def parse_trailers(block: bytes) -> Headers:
    """Read the lines after the last chunk; `block` ends with an empty line and has at least one field.

    Raises HttpError: those of `check_lines`, `http_header_name`.
    """
    check_lines(block)
    trailers = []
    for line in block[:-4].split(CRLF):
        name, colon, value = line.partition(b":")
        if not colon or not name or name.translate(None, TOKEN_BYTES):
            raise HttpError("http_header_name", f"{name[:100]!r} is not a field name")
        trailers.append((name, value.strip(b" \t")))
    return tuple(trailers)


class _Parser(Protocol):
    def feed_data(self, data: bytes) -> None: ...


class _Sink:
    """What llhttp calls. Nothing here may raise: httptools would hide it."""

    __slots__ = ("complete", "fields", "headers", "target")

    def __init__(self) -> None:
        self.target = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.fields: dict[bytes, list[bytes]] = {}
        self.complete = False

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        value = value.strip()  # llhttp leaves white space at the end; only SP and HTAB can be left here
        self.headers.append((name, value))
        lower = name.lower()
        if lower in _WATCHED:
            self.fields.setdefault(lower, []).append(value)

    def on_headers_complete(self) -> None:
        self.complete = True


def _feed(parser: _Parser, sink: _Sink, block: bytes) -> str | None:
    try:
        parser.feed_data(block)
    except httptools.HttpParserUpgrade:
        pass  # llhttp stops here for CONNECT and Upgrade; the head is read
    except httptools.HttpParserError as error:
        if not sink.complete:
            sink.headers, sink.fields = read_roughly(block)
        return str(error)
    if not sink.complete:
        return "the head does not end where its empty line stands"
    return None


def read_roughly(block: bytes) -> tuple[list[tuple[bytes, bytes]], dict[bytes, list[bytes]]]:
    """The fields of a head that llhttp refused, so that the reason can be named. Never used to go on.

    Raises HttpError when a line itself says why: `http_space_before_colon`, `http_header_name`.
    """
    fields: dict[bytes, list[bytes]] = {}
    headers = []
    for line in block[:-4].split(CRLF)[1:]:
        name, colon, value = line.partition(b":")
        if colon and name.endswith((b" ", b"\t")):
            raise HttpError("http_space_before_colon", f"white space follows the field name {name[:100]!r}")
        if not colon or not name or name.translate(None, TOKEN_BYTES):
            raise HttpError("http_header_name", f"{name[:100]!r} is not a field name")
        headers.append((name, value.strip(b" \t")))
        if name.lower() in _WATCHED:
            fields.setdefault(name.lower(), []).append(value.strip(b" \t"))
    return headers, fields
