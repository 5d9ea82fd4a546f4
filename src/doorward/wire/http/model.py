"""The nouns of an HTTP/1.1 conversation: what the readers hand out and the writer takes.

All are immutable values without behaviour worth a test of its own. Header fields keep the order and the case of their
names; values are stripped of the white space around them. Nothing here knows where the bytes came from.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple, TypeAlias

Headers: TypeAlias = tuple[tuple[bytes, bytes], ...]
Version: TypeAlias = Literal["1.0", "1.1"]

HEAD_BYTES_MAX: Final = 65_536


class Framing(NamedTuple):
    """How a body's end is found (RFC 9112 6.3). `length` is its size in bytes when `kind` is "length", else 0."""

    kind: Literal["none", "length", "chunked", "close"]
    length: int = 0


NO_BODY: Final = Framing("none")
CHUNKED: Final = Framing("chunked")
UNTIL_CLOSE: Final = Framing("close")


class Request(NamedTuple):
    """One judged request head.

    `host` is lower case, without a final dot or brackets; `port` is 1 to 65,535. `authority` is the same two
    written anew for the Host field. `path` is what the origin server is asked for: path and query, or `*`;
    empty for CONNECT. `headers` are all the fields as sent, hop-by-hop ones included: the writer removes those.
    `options` are the names in the Connection field, in lower case. `keep_alive` says that the client's
    connection may carry another request. `upgrade` is "websocket" for a well-formed WebSocket handshake, None
    for every other or no protocol.
    """

    method: str
    host: str
    port: int
    authority: bytes
    path: bytes
    version: Version
    headers: Headers
    framing: Framing
    options: frozenset[bytes]
    keep_alive: bool
    expect_continue: bool
    upgrade: Literal["websocket"] | None
    proxy_authorization: bytes | None

    @property
    def is_connect(self) -> bool:
        return self.method == "CONNECT"


class Response(NamedTuple):
    """One judged response head. `status` is 100 to 999.

    `declared_length` is the Content-Length of an answer that has no body of its own (to HEAD, and 304), else None.
    `keep_alive` says that the server's connection may be used again once the body has ended.
    """

    status: int
    reason: bytes
    version: Version
    headers: Headers
    framing: Framing
    options: frozenset[bytes]
    keep_alive: bool
    declared_length: int | None = None

    @property
    def is_interim(self) -> bool:
        """Another response to the same request follows (RFC 9110 15.2)."""
        return self.status < 200 and self.status != 101


class Data(NamedTuple):
    """Some bytes of a body, never empty. Chunk boundaries carry no meaning and are not kept."""

    data: bytes


class End(NamedTuple):
    """The message is complete. `trailers` are empty unless it was chunked."""

    trailers: Headers = ()


RequestEvent: TypeAlias = Request | Data | End
ResponseEvent: TypeAlias = Response | Data | End
