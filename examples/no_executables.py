"""Refuses Windows executables in plain HTTP downloads, and looks at nothing more than their first bytes.

    [[filter]]
    name = "no-executables"
    use = "no_executables.py"
    protocols = ["http"]

The beginning of an answer is held until its body has shown what it is: `MZ`, with a PE header where the first
bytes say one stands. Then the filter has seen enough, and the rest of the download is relayed without it. A client
that asked an HTTP proxy is told 403 with the reason; a tunnel (SOCKS, CONNECT) is reset. Reasons on record:

    executable         the body begins as a Windows executable does, or the look at it was cut short
    not_http           the answer is not HTTP/1 as it should be written, so its body cannot be found
    answer_too_long    no end of the head, or no verdict, within 64 KiB

One answer for each connection: the answer's head is given `Connection: close`, so the client makes a new
connection for its next request, and that one is looked at too. What it cannot know: executables inside compressed
bodies and archives, in ranges that begin in the middle, after a switch of protocols (101), and anything in TLS.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from doorward.api import Interest, Refuse, StreamFilter

HELD_BYTES_MAX = 64 * 1024
# Linkers put the PE header into the first kilobyte. A file that hides it further behind is taken for one, unless it
# says a place where Windows would not look any more; a text that happens to begin with MZ says such a place.
LOOK_BYTES_MAX = 4096
HEADER_AT_MAX = 256 * 1024 * 1024

_STATUS = re.compile(rb"HTTP/1\.[01] ([1-9][0-9]{2})(?: [^\r\n\0]*)?")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\r\n\0]*?)[ \t]*")
_LENGTH = re.compile(rb"[0-9]{1,18}")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t;][^\r\n]*)?")


class NoExecutables(StreamFilter):
    """One for each connection."""

    interest = Interest.of("http")

    def start(self) -> None:
        self.method = b""  # as much of the first request's method as it takes to know a HEAD
        self.held = b""

    def client_data(self, data: bytes) -> bytes:
        self.method += data[: 5 - len(self.method)]
        return data

    def server_data(self, data: bytes) -> bytes:
        self.held += data
        interim = b""
        while (end := self.held.find(b"\r\n\r\n")) >= 0:
            head, rest = parse_head(self.held[:end]), self.held[end + 4 :]
            if 100 <= head.status < 200 and head.status != 101:
                interim += self.held[: end + 4]
                self.held = rest
                continue
            if (verdict := self.judge(head, rest)) is None:
                break
            if verdict:
                raise Refuse("executable", "the body begins as a Windows executable does")
            self.seen_enough()
            return interim + (self.held[: end + 4] if head.status == 101 else head.with_close()) + rest
        if len(self.held) > HELD_BYTES_MAX:
            raise Refuse("answer_too_long", f"no verdict within {HELD_BYTES_MAX} bytes")
        return interim

    def server_end(self) -> bytes:
        if not self.held:
            return b""
        block, ended, rest = self.held.partition(b"\r\n\r\n")
        if not ended:
            raise Refuse("not_http", "the answer ended within its head")
        body, _ = first_body_bytes(parse_head(block), rest)
        if body.startswith(b"MZ"):
            raise Refuse("executable", "the body begins with MZ and ended before it could be judged")
        return self.held

    def judge(self, head: Head, rest: bytes) -> bool | None:
        """Whether the answer is an executable; None when more has to be seen."""
        if self.method == b"HEAD " or head.status in (101, 204, 304):
            return False
        body, ended = first_body_bytes(head, rest)
        return is_executable(body, ended=ended)


class Head(NamedTuple):
    """An answer's head: the lines as they came, and the last value of each field by its name in small letters."""

    status: int
    lines: list[bytes]
    fields: dict[bytes, bytes]

    def with_close(self) -> bytes:
        """The same head, saying that this connection ends with this answer (RFC 9112 section 9.6)."""
        kept = [line for line in self.lines if not line.lower().startswith((b"connection:", b"keep-alive:"))]
        return b"\r\n".join([*kept, b"Connection: close", b"", b""])


def parse_head(block: bytes) -> Head:
    """A head without its empty line. Raises Refuse for what two readers could understand differently."""
    first, *lines = block.split(b"\r\n")
    status = _STATUS.fullmatch(first)
    fields: dict[bytes, bytes] = {}
    for line in lines:
        field = _FIELD.fullmatch(line)
        if field is None:
            raise Refuse("not_http", "a header line is malformed")
        name, value = field[1].lower(), field[2]
        if name in (b"content-length", b"transfer-encoding") and fields.get(name, value) != value:
            raise Refuse("not_http", "two different framings")
        fields[name] = value
    if status is None or fields.get(b"transfer-encoding", b"chunked").lower() != b"chunked":
        raise Refuse("not_http", "not an answer of HTTP/1, or an unknown transfer coding")
    if _LENGTH.fullmatch(fields.get(b"content-length", b"0")) is None:
        raise Refuse("not_http", "Content-Length is no number")
    return Head(int(status[1]), [first, *lines], fields)


def first_body_bytes(head: Head, data: bytes) -> tuple[bytes, bool]:
    """The body's first bytes as far as they have come, and whether that is all of it."""
    if b"transfer-encoding" in head.fields:
        return first_chunked_bytes(data)
    length = head.fields.get(b"content-length")
    size = LOOK_BYTES_MAX if length is None else min(int(length), LOOK_BYTES_MAX)
    return data[:size], length is not None and len(data) >= int(length)


def first_chunked_bytes(data: bytes) -> tuple[bytes, bool]:
    """The same, of a chunked body (RFC 9112 section 7.1). Raises Refuse where it is malformed."""
    body, at = b"", 0
    while len(body) < LOOK_BYTES_MAX and (end := data.find(b"\r\n", at)) >= 0:
        line = _CHUNK_SIZE.fullmatch(data, at, end)
        if line is None:
            raise Refuse("not_http", "a chunk's size is malformed")
        size = int(line[1], 16)
        if size == 0:
            return body, True
        body += data[end + 2 : end + 2 + min(size, LOOK_BYTES_MAX)]
        at = end + 2 + size + 2
        if data[at - 2 : at] not in (b"\r\n", b"\r", b""):
            raise Refuse("not_http", "a chunk does not end where it should")
    return body[:LOOK_BYTES_MAX], False


def is_executable(body: bytes, *, ended: bool) -> bool | None:
    """Whether these first bytes are a Windows executable's; None when more have to be seen."""
    if body[:2] != b"MZ"[: len(body)]:
        return False
    unseen = False if ended else None
    if len(body) < 64:
        return unseen
    header_at = int.from_bytes(body[60:64], "little")
    if header_at > LOOK_BYTES_MAX - 4:
        return header_at < HEADER_AT_MAX
    if len(body) < header_at + 4:
        return unseen
    return body[header_at : header_at + 4] == b"PE\0\0"
