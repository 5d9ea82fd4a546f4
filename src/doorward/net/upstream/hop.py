"""The talk with one upstream, over whatever leads to it: who we are, where to, and its answer.

The bytes are the business of `wire`; here they are sent and received, and what can go wrong gets its name. An
upstream's words are hostile input like any other: the codecs have their limits, the caller has the deadline.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from doorward.api.errors import (
    LinkError,
    OutOfResources,
    ReplyHint,
    Side,
    TimedOut,
    UpstreamError,
    UpstreamLoginRefused,
    UpstreamRefused,
    UpstreamUnavailable,
)
from doorward.wire.basic import basic
from doorward.wire.errors import ProtocolError
from doorward.wire.http import ConnectResponse, ConnectResponseReader, connect_request
from doorward.wire.printable import printable
from doorward.wire.socks import Socks5Client, Socks5Reply

if TYPE_CHECKING:
    from collections.abc import Callable

    from doorward.config.model import Upstream
    from doorward.net.carrier import Carrier
    from doorward.policy.model import IPAddress

# More than any answer needs; what a fast server sends behind it comes along and is kept.
READ_BYTES: Final = 16 * 1024

_SOCKS5_HINTS: Final = {
    Socks5Reply.NOT_ALLOWED: ReplyHint.NOT_ALLOWED,
    Socks5Reply.NETWORK_UNREACHABLE: ReplyHint.NETWORK_UNREACHABLE,
    Socks5Reply.HOST_UNREACHABLE: ReplyHint.HOST_UNREACHABLE,
    Socks5Reply.CONNECTION_REFUSED: ReplyHint.REFUSED,
    Socks5Reply.TTL_EXPIRED: ReplyHint.TIMED_OUT,
}
# RFC 9110 section 15. Proxies say 502 and 503 for whatever keeps them from the destination.
_HTTP_HINTS: Final = {
    408: ReplyHint.TIMED_OUT,
    429: ReplyHint.BUSY,
    502: ReplyHint.HOST_UNREACHABLE,
    503: ReplyHint.HOST_UNREACHABLE,
    504: ReplyHint.TIMED_OUT,
}
_LOGIN_REASONS: Final = frozenset({"no_method", "login_refused"})
_PROXY_AUTHENTICATION_REQUIRED: Final = 407


@dataclass(slots=True)
class Progress:
    """How far it has come, for whoever has to say what a deadline cut off."""

    upstream: str = ""
    asked: bool = False  # this upstream was told the destination
    accepted: bool = False  # and had shown before that it is alive and takes us for who we are

    def too_late(self) -> LinkError:
        """Nothing came within the time: whose silence it is depends on what was said before."""
        if self.accepted:
            return TimedOut(f'upstream "{self.upstream}" did not reach it in time', side=Side.EXTERNAL)
        return unavailable(self.upstream, "no answer in time", asked=self.asked)


def unavailable(upstream: str, detail: str, *, asked: bool = False) -> UpstreamUnavailable:
    """The error for an upstream that cannot be used at this moment."""
    error = UpstreamUnavailable(detail, upstream=upstream, side=Side.EXTERNAL)
    error.asked = asked
    return error


async def open_tunnel(
    carrier: Carrier,
    upstream: Upstream,
    host: str | IPAddress,
    port: int,
    progress: Progress,
    on_accepted: Callable[[], None],
) -> bytes:
    """Ask for a tunnel; what came behind the answer belongs to whoever is at its other end.

    `on_accepted` is called when the upstream has accepted us and only the destination is left to wait for; HTTP has
    no such moment. Raises UpstreamUnavailable, UpstreamLoginRefused, UpstreamRefused, OutOfResources; the carrier is
    then of no use, and still the caller's. Has no deadline of its own.
    """
    progress.upstream, progress.asked, progress.accepted = upstream.name, False, False
    talk = _socks5 if upstream.kind == "socks5" else _http
    try:
        return await talk(carrier, upstream, host, port, progress, on_accepted)
    except ProtocolError as error:
        raise _failure(upstream, error, progress) from None
    except (OutOfResources, UpstreamError):
        raise
    except LinkError as error:
        raise unavailable(upstream.name, error.detail, asked=progress.asked) from None


async def _socks5(
    carrier: Carrier,
    upstream: Upstream,
    host: str | IPAddress,
    port: int,
    progress: Progress,
    on_accepted: Callable[[], None],
) -> bytes:
    client = Socks5Client(host, port, username=upstream.user, password=upstream.password)
    await carrier.send(client.start())
    bound = None
    while bound is None:
        try:
            send, bound = client.receive(await _read(carrier, upstream, progress))
        finally:
            progress.asked = client.asked
        if send:
            await carrier.send(send)
        if client.asked and not progress.accepted:
            progress.accepted = True
            on_accepted()
    return client.trailing


async def _http(
    carrier: Carrier,
    upstream: Upstream,
    host: str | IPAddress,
    port: int,
    progress: Progress,
    on_accepted: Callable[[], None],
) -> bytes:
    authorization = None if upstream.user is None else basic(upstream.user, upstream.password)
    reader = ConnectResponseReader()
    await carrier.send(connect_request(str(host), port, authorization))
    progress.asked = True
    response = None
    while response is None:
        response = reader.receive(await _read(carrier, upstream, progress))
    if not response.opened:
        raise _http_refusal(upstream, response)
    return response.leftover


async def _read(carrier: Carrier, upstream: Upstream, progress: Progress) -> bytes:
    data = await carrier.recv(READ_BYTES)
    if not data:
        raise unavailable(upstream.name, "it closed without an answer", asked=progress.asked)
    return data


def _http_refusal(upstream: Upstream, response: ConnectResponse) -> LinkError:
    said = f"it answered {response.status} {printable(response.reason)}".rstrip()
    if response.status == _PROXY_AUTHENTICATION_REQUIRED:
        return UpstreamLoginRefused(said, upstream=upstream.name, side=Side.EXTERNAL)
    otherwise = ReplyHint.NOT_ALLOWED if 400 <= response.status < 500 else ReplyHint.FAILED
    hint = _HTTP_HINTS.get(response.status, otherwise)
    return UpstreamRefused(said, upstream=upstream.name, side=Side.EXTERNAL, hint=hint)


def _failure(upstream: Upstream, error: ProtocolError, progress: Progress) -> LinkError:
    """What a codec did not like, or was told."""
    if error.reason in _LOGIN_REASONS:
        return UpstreamLoginRefused(error.detail, upstream=upstream.name, side=Side.EXTERNAL)
    if error.reason == "upstream_refused":
        hint = next((hint for reply, hint in _SOCKS5_HINTS.items() if reply == error.code), ReplyHint.FAILED)
        return UpstreamRefused(error.detail, upstream=upstream.name, side=Side.EXTERNAL, hint=hint)
    return unavailable(upstream.name, f"{error.reason}: {error.detail}", asked=progress.asked)
