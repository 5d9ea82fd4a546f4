"""The client's role towards another HTTP proxy: ask for a tunnel, read the answer (RFC 9110 9.3.6).

Used when outbound traffic goes through an upstream proxy. Not known here: which upstream, or what will go
through the tunnel.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from doorward.wire.http.authority import parse_authority, write_authority
from doorward.wire.http.errors import HttpError
from doorward.wire.http.head import Block
from doorward.wire.http.model import HEAD_BYTES_MAX, NO_BODY, Headers, Request
from doorward.wire.http.response import read_response
from doorward.wire.http.response_reader import INTERIM_MAX
from doorward.wire.http.writer import write_head

_ANY_REQUEST: Final = Request(
    method="HEAD",  # an answer to CONNECT that succeeds has no body, whatever its fields say
    host="",
    port=0,
    authority=b"",
    path=b"",
    version="1.1",
    headers=(),
    framing=NO_BODY,
    options=frozenset(),
    keep_alive=False,
    expect_continue=False,
    upgrade=None,
    proxy_authorization=None,
)


class ConnectResponse(NamedTuple):
    """The upstream's answer. `leftover` is what came behind the head: the tunnel's first bytes if it was opened."""

    status: int
    reason: bytes
    headers: Headers
    leftover: bytes

    @property
    def opened(self) -> bool:
        return 200 <= self.status < 300


def connect_request(host: str, port: int, authorization: bytes | None = None) -> bytes:
    """CONNECT for a host name or address without brackets; `authorization` is the value of Proxy-Authorization.

    Raises HttpError `http_host` or `http_port` for what could not be asked for, ValueError for a line break in
    the value.
    """
    authority = write_authority(host, port, None)
    parse_authority(authority)
    fields = [(b"Host", authority)]
    if authorization is not None:
        fields.append((b"Proxy-Authorization", authorization))
    return write_head(b"CONNECT %b HTTP/1.1" % authority, fields)


class ConnectResponseReader:
    """Reads the answer to one CONNECT. Framing fields must not contradict each other, and are otherwise ignored."""

    def __init__(self, head_bytes_max: int = HEAD_BYTES_MAX) -> None:
        self._head_bytes_max = head_bytes_max
        self._block = Block(head_bytes_max, b"H")
        self._interim = 0

    def receive(self, data: bytes) -> ConnectResponse | None:
        """The answer, or None while more is needed. Raises HttpError with status 502 and no reply."""
        try:
            while data:
                found = self._block.receive(data)
                if found is None:
                    return None
                block, data = found
                response = read_response(block, _ANY_REQUEST)
                if not response.is_interim:
                    return ConnectResponse(response.status, response.reason, response.headers, data)
                self._count_interim()
        except HttpError as error:
            error.status = 502
            raise
        return None

    def eof(self) -> None:
        """The upstream closed before it answered. Raises HttpError `http_no_response`."""
        raise HttpError("http_no_response", "the upstream proxy closed without an answer", status=502)

    def _count_interim(self) -> None:
        self._interim += 1
        if self._interim > INTERIM_MAX:
            raise HttpError("http_interim", f"over {INTERIM_MAX} interim answers")
        self._block = Block(self._head_bytes_max, b"H")
