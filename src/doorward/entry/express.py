"""Clients that the front has heard out (`net.front`): settled at once, or served like everybody else.

The front knows two handshakes; whoever speaks another comes here as a visitor, with all that was said, and so does one
whose request cannot be settled without waiting.
"""

from __future__ import annotations

import time
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from doorward.api.errors import OutOfResources
from doorward.api.filters import ClientKind
from doorward.engine import express
from doorward.engine.origin import Origin
from doorward.engine.target import Target, target_of
from doorward.entry.http.answers import answer
from doorward.entry.socks import REPLIES
from doorward.net.front import is_socks
from doorward.policy.address import BadHost
from doorward.policy.model import UNKNOWN, Unknown
from doorward.wire.errors import ProtocolError
from doorward.wire.http import HttpError, RequestReader
from doorward.wire.http import Request as HttpRequest
from doorward.wire.socks import read_request5, reply5

if TYPE_CHECKING:
    from doorward.engine.connection import Connection
    from doorward.engine.engine import Engine
    from doorward.engine.outcome import Refusal
    from doorward.entry.mixed import MixedEntry
    from doorward.net.front import Front, Visitor

# Different requests remembered; programs ask for the same few places again and again.
REQUESTS_MAX: Final = 4096
HEADS_MAX: Final = 1024
# A head that may be remembered: it holds no secret, and not more than programs write of their own accord.
HEAD_BYTES_MAX: Final = 1024
SECRET: Final = b"authorization"


class Asked(NamedTuple):
    """A request as it is judged. An HTTP client could still be asked who it is."""

    target: Target
    entry: str
    kind: ClientKind
    user: Unknown | None


class Express:
    """The guests of one front. See `net.front.Guests`."""

    def __init__(self, engine: Engine, entry: MixedEntry) -> None:
        self._engine = engine
        self._entry = entry
        self.front: Front | None = None

    def visited(self, visitor: Visitor) -> None:
        """Serve it from its first byte on."""
        self._entry.on_visitor(visitor)

    def asked(self, client_id: int, address: tuple[str, int], request: bytes) -> None:
        """Connect it, or have it served the common way, which knows every reason to refuse."""
        front = self.front
        assert front is not None
        if not self._settle(front, client_id, address, request):
            visitor = front.take(client_id, address)
            if visitor is not None:
                self._entry.on_visitor(visitor)

    def stood(self, client_id: int, connect_us: int) -> None:
        """The relay has it."""
        express.stood(self._engine, client_id, connect_us)

    def failed(self, client_id: int, visitor: Visitor) -> None:
        """Nobody was reached: the client is told."""
        self._part(visitor, express.failed(self._engine, client_id, visitor.errno))

    def lost(self, client_id: int, number: int) -> None:
        """It is over, and nobody is there to be told."""
        express.lost(self._engine, client_id, number)

    def _settle(self, front: Front, client_id: int, address: tuple[str, int], request: bytes) -> bool:
        engine = self._engine
        asked = self._read(request)
        if asked is None:
            return False
        target, entry, kind, user = asked
        try:
            session = engine.sessions.get(address[0], user)
        except OutOfResources:
            return False
        origin = Origin(entry, kind, *address)
        course = express.course(engine, session, target, origin, user, time.time())
        if course is None:
            return False
        connection = express.begin(engine, session, target, origin, course, client_id)
        if connection.refusal is not None:
            if (visitor := front.take(client_id, address)) is not None:
                self._part(visitor, connection)
            return True
        ruling = connection.ruling
        front.dial(
            client_id, course.address, target.port, ruling.pair_limits, ruling.limits.connect_timeout_s
        )
        return True

    def _read(self, request: bytes) -> Asked | None:
        """What is asked for; None for what has to be refused, or takes a password."""
        if is_socks(request):
            return _read_socks(request)
        if len(request) > min(HEAD_BYTES_MAX, self._engine.ruling.limits.header_bytes_max):
            return None
        return None if SECRET in request.lower() else _read_http(request)

    def _part(self, visitor: Visitor, connection: Connection | None) -> None:
        """Tell a client why not, in its protocol; without a connection it is reset."""
        refusal = None if connection is None else connection.refusal
        if connection is None or refusal is None:
            self._entry.part(visitor, None)
        elif visitor.answered:
            self._entry.part(visitor, reply5(REPLIES[refusal.hint]))
        else:
            self._entry.part(visitor, _http_answer(refusal, connection.target, visitor.said))


@lru_cache(maxsize=REQUESTS_MAX)
def _read_socks(request: bytes) -> Asked | None:
    try:
        found = read_request5(request)
        host = found.host if found.host is not None else found.address
        if host is None:
            return None
        return Asked(target_of(host, found.port), "socks5", ClientKind.SOCKS, None)
    except (ProtocolError, BadHost):
        return None


@lru_cache(maxsize=HEADS_MAX)
def _read_http(head: bytes) -> Asked | None:
    try:
        request = _request_of(head)
        if request is None or not request.is_connect:
            return None
        return Asked(target_of(request.host, request.port), "http-connect", ClientKind.HTTP, UNKNOWN)
    except (HttpError, BadHost):
        return None


def _request_of(said: bytes) -> HttpRequest | None:
    """The first request. Raises HttpError."""
    event = next(iter(RequestReader(HEAD_BYTES_MAX).receive(said)), None)
    return event if isinstance(event, HttpRequest) else None


def _http_answer(refusal: Refusal, target: Target, said: bytes) -> bytes:
    request = _request_of(said)
    assert request is not None, "it was read before"
    return answer(refusal, target, request, keep_alive=False)
