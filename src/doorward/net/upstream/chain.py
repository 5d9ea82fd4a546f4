"""Upstreams one behind another: the first is dialled, each lays a tunnel to the next, the last to the destination.

The operator has named them, so the policy's guard does not apply to their addresses. The name of the first is looked
up here; that of a later one by the upstream before it, which may be the only one to know it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from doorward.api.errors import BadArgument, LinkError, OutOfResources, UpstreamRefused, UpstreamUnavailable
from doorward.net.dial import dial
from doorward.net.leg import Leg
from doorward.net.tls import connect_tls
from doorward.net.upstream.ahead import Ahead
from doorward.net.upstream.hop import Progress, open_tunnel, unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from doorward.config.model import Upstream, UpstreamTls
    from doorward.net.carrier import Carrier
    from doorward.net.poller import Poller
    from doorward.net.resolve import Addresses
    from doorward.policy.model import IPAddress


class Resolve(Protocol):
    """Names to addresses."""

    async def resolve(self, name: str) -> Addresses: ...


async def dial_through(
    poller: Poller,
    resolver: Resolve,
    hops: Sequence[Upstream],
    host: str | IPAddress,
    port: int,
    timeout_s: float,
    progress: Progress,
    on_accepted: Callable[[], None],
) -> Carrier:
    """A carrier to the destination: the `Leg` itself where no hop has TLS. Its counts begin with the destination's
    bytes; what an upstream sent behind its answer is received first.

    `timeout_s` is for each step; the deadline of the whole is the caller's, who learns from `progress` what it
    cut off. `on_accepted` as in `open_tunnel`, for the last hop. Raises UpstreamUnavailable (of whichever hop),
    UpstreamLoginRefused, UpstreamRefused (of the last hop alone), OutOfResources. After failure or cancellation
    nothing is left.
    """
    progress.upstream, progress.asked, progress.accepted = hops[0].name, False, False
    carrier: Carrier = await _dial_first(poller, resolver, hops[0], timeout_s)
    try:
        for hop, following in zip(hops, [*hops[1:], None], strict=True):
            progress.upstream = hop.name
            if hop.tls is not None:
                carrier = await _secured(carrier, hop.name, hop.tls, timeout_s)
            if following is None:
                rest = await open_tunnel(carrier, hop, host, port, progress, on_accepted)
            else:
                rest = await _open_to_next(carrier, hop, following, progress)
            carrier = _with_rest(carrier, rest)
    except BaseException:
        carrier.close_now(abortive=True)
        raise
    return carrier


async def _dial_first(poller: Poller, resolver: Resolve, hop: Upstream, timeout_s: float) -> Leg:
    try:
        addresses = await resolver.resolve(hop.host) if isinstance(hop.host, str) else (hop.host,)
        leg, _ = await dial(poller, addresses, hop.port, timeout_s)
    except OutOfResources:
        raise
    except LinkError as error:
        raise unavailable(hop.name, f"{error.slug}: {error.detail}") from None
    return leg


async def _secured(carrier: Carrier, upstream: str, tls: UpstreamTls, timeout_s: float) -> Carrier:
    try:
        return await connect_tls(carrier, tls.context, tls.server_name, timeout_s=timeout_s)
    except OutOfResources:
        raise
    except (LinkError, BadArgument) as error:
        raise unavailable(upstream, f"{error.slug}: {error.detail}") from None


async def _open_to_next(carrier: Carrier, hop: Upstream, following: Upstream, progress: Progress) -> bytes:
    """What goes wrong from here on is about the next hop: the destination is not known to anybody yet."""
    try:
        return await open_tunnel(carrier, hop, following.host, following.port, progress, _nothing)
    except (UpstreamRefused, UpstreamUnavailable) as error:
        asked = isinstance(error, UpstreamRefused) or error.asked
        if not asked:
            raise
        raise unavailable(following.name, f"not reached, {error.detail}") from None
    finally:
        if progress.asked:
            progress.upstream, progress.asked, progress.accepted = following.name, False, False


def _with_rest(carrier: Carrier, rest: bytes) -> Carrier:
    if not isinstance(carrier, Leg):
        return Ahead(carrier, rest)
    carrier.put_back(rest)
    carrier.sent, carrier.received = 0, len(rest)
    return carrier


def _nothing() -> None:
    pass
