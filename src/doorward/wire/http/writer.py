"""HTTP/1.1 written anew: no head that came in goes out as it came.

Framing, Host and connection management are ours; end-to-end fields are carried in their order and spelling;
hop-by-hop fields, and those the Connection field names, end here (RFC 9110 7.6.1). No Via field is added: a
firewall does not tell servers who is behind it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from doorward.wire.http.model import CHUNKED, NO_BODY, UNTIL_CLOSE, Framing, Headers, Request, Response

CONNECT_ESTABLISHED: Final = b"HTTP/1.1 200 Connection established\r\n\r\n"
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
LAST_CHUNK: Final = b"0\r\n\r\n"

_HOP_BY_HOP: Final = frozenset({
    b"connection", b"keep-alive", b"te", b"transfer-encoding", b"content-length", b"upgrade", b"http2-settings",
})  # fmt: skip
# Doorward-Reason is the firewall's voice: no server may borrow it, and none needs to hear it.
_REQUEST_DROPS: Final = _HOP_BY_HOP | {b"host", b"doorward-reason"}
_RESPONSE_DROPS: Final = _HOP_BY_HOP | {b"doorward-reason"}
_TRAILER: Final = frozenset({b"trailer"})

# RFC 9110 6.5.1: fields that would frame, route, authenticate, or change how the content is read.
_TRAILER_DROPS: Final = _REQUEST_DROPS | _TRAILER | {
    b"authorization", b"cache-control", b"content-encoding", b"content-range", b"content-type", b"cookie", b"expect",
    b"location", b"max-forwards", b"range", b"set-cookie", b"www-authenticate",
}  # fmt: skip

_ORDINARY_OPTIONS: Final = frozenset({b"keep-alive", b"close", b"upgrade", b"te", b"http2-settings"})


def request_head(request: Request, *, keep_alive: bool = True) -> bytes:
    """The head for the origin server, in origin-form (never for CONNECT). `keep_alive` concerns the server's
    connection.

    Raises ValueError if a field, changed since it was read, would break the head.
    """
    drops = _drops(_REQUEST_DROPS, request.options, request.framing)
    fields = [(b"Host", request.authority)]
    fields += _carried(request.headers, drops)
    _add_framing(fields, request.framing)
    if request.upgrade is not None:
        fields += ((b"Connection", b"Upgrade"), (b"Upgrade", request.upgrade.encode()))
    elif not keep_alive:
        fields.append((b"Connection", b"close"))
    return write_head(b"%b %b HTTP/1.1" % (request.method.encode(), request.path), fields)


def response_framing(response: Response, request: Request) -> Framing:
    """How the response's body travels to the client: HTTP/1.0 knows no chunks, HTTP/1.1 needs no closing."""
    if response.framing.kind in ("chunked", "close"):
        return CHUNKED if request.version == "1.1" else UNTIL_CLOSE
    return response.framing


def response_head(response: Response, request: Request, *, keep_alive: bool) -> bytes:
    """The head for the client. `keep_alive`: the client's connection stays open; False wherever closing ends
    the body.

    The body that follows is written with `body(response_framing(...), data)` and `body_end`. Raises ValueError
    if a field, changed since it was read, would break the head.
    """
    framing = response_framing(response, request)
    fields = _carried(response.headers, _drops(_RESPONSE_DROPS, response.options, framing))
    if response.status == 101:
        fields += ((b"Connection", b"Upgrade"), (b"Upgrade", (request.upgrade or "").encode()))
    elif response.status >= 200:
        if framing is NO_BODY and response.declared_length is not None:
            framing = Framing("length", response.declared_length)
        _add_framing(fields, framing)
        if not keep_alive or framing.kind == "close":
            fields.append((b"Connection", b"close"))
        elif request.version == "1.0":
            fields.append((b"Connection", b"keep-alive"))
    return write_head(b"HTTP/1.1 %d %b" % (response.status, response.reason), fields)


def body(framing: Framing, data: bytes) -> bytes:
    """Body bytes in the given framing. The caller answers for the number of bytes if that is a length."""
    return chunk(data) if framing.kind == "chunked" else data


def body_end(framing: Framing, trailers: Headers = ()) -> bytes:
    """What ends the body in the given framing."""
    return last_chunk(trailers) if framing.kind == "chunked" else b""


def chunk(data: bytes) -> bytes:
    """One chunk; nothing for no bytes, because an empty chunk would end the body."""
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""


def last_chunk(trailers: Headers = ()) -> bytes:
    """The last chunk, with the trailers that may be forwarded. Raises ValueError like the heads."""
    if not trailers:
        return LAST_CHUNK
    return write_head(b"0", _carried(trailers, _TRAILER_DROPS))


def write_head(first_line: bytes, fields: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Lines and the empty line.

    Raises ValueError if a value holds a CR, LF or NUL of its own: no response is ever split.
    """
    lines = [first_line]
    lines += [b"%b: %b" % field for field in fields]
    head = b"\r\n".join(lines) + b"\r\n\r\n"
    breaks = len(lines) + 1
    if head.count(b"\n") != breaks or head.count(b"\r") != breaks or b"\0" in head:
        raise ValueError("a field holds a line break or NUL")
    return head


def _drops(drops: frozenset[bytes], options: frozenset[bytes], framing: Framing) -> frozenset[bytes]:
    if not options <= _ORDINARY_OPTIONS:
        drops = drops | options
    # Trailer announces what only chunks can carry.
    return drops if framing.kind == "chunked" else drops | _TRAILER


def _carried(headers: Iterable[tuple[bytes, bytes]], drops: frozenset[bytes]) -> list[tuple[bytes, bytes]]:
    carried = []
    for field in headers:
        name = field[0].lower()
        if name not in drops and not name.startswith(b"proxy-"):
            carried.append(field)
    return carried


def _add_framing(fields: list[tuple[bytes, bytes]], framing: Framing) -> None:
    if framing.kind == "length":
        fields.append((b"Content-Length", b"%d" % framing.length))
    elif framing.kind == "chunked":
        fields.append((b"Transfer-Encoding", b"chunked"))
