"""Which way a connection takes: its route's upstreams in their order, those that rest last, and direct only where the
policy says so.

An upstream that cannot be reached hands over to the next one. What an upstream answered about the destination is
final, save that another address of the same destination may do better.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple

from doorward.api.errors import (
    ConnectionRefused,
    LinkError,
    ReplyHint,
    Side,
    TimedOut,
    Unreachable,
    UpstreamError,
    UpstreamLoginRefused,
    UpstreamNoBind,
    UpstreamNoUdp,
    UpstreamRefused,
    UpstreamUnavailable,
)
from doorward.config.upstreams import hops
from doorward.net.dial import ATTEMPTS_MAX, dial, interleave
from doorward.net.upstream.chain import Resolve, dial_through
from doorward.net.upstream.health import Health
from doorward.net.upstream.hop import Progress
from doorward.policy.model import INBOUND
from doorward.policy.routes import DIRECT, Chosen, Routes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from doorward.config.model import Upstream
    from doorward.net.carrier import Carrier
    from doorward.net.poller import Poller
    from doorward.policy.model import Decision, Inputs, IPAddress


class Reached(NamedTuple):
    """The way to the destination. `address` is what was asked for; with `send = "name"` the upstream may have chosen
    another. `upstream` is the last one on the way, None if it is direct; `route` the route that chose it.
    """

    carrier: Carrier
    address: IPAddress
    upstream: str | None
    route: str | None


class Ways:
    """The routes and upstreams of one revision, and how the upstreams have fared since it is in force."""

    def __init__(
        self, poller: Poller, resolver: Resolve, routes: Routes, upstreams: Mapping[str, Upstream]
    ) -> None:
        self._poller = poller
        self._resolver = resolver
        self._routes = routes
        self._hops = {name: hops(upstreams, name) for name in upstreams}
        self.health = Health(poller.loop.time)

    async def reach(
        self, addresses: Mapping[IPAddress, Decision], host: str | None, port: int, timeout_s: float
    ) -> Reached:
        """Connect to one of the allowed addresses, each by the way that its own decision's inputs choose.

        `host` is the name that was judged, None if the client asked for an address. Raises what `dial` raises,
        UpstreamUnavailable, UpstreamLoginRefused, UpstreamRefused. After failure or cancellation nothing is left.
        """
        if not self._routes:
            leg, address = await dial(self._poller, tuple(addresses), port, timeout_s)
            return Reached(leg, address, None, None)
        groups: dict[Chosen, list[IPAddress]] = {}
        for address, decision in addresses.items():
            groups.setdefault(self._routes.choose(decision.inputs), []).append(address)
        deadline = self._poller.loop.time() + timeout_s
        failure: LinkError | None = None
        for chosen, group in groups.items():
            try:
                return await self._by(chosen, group, host, port, deadline)
            except LinkError as error:
                if not _another_may_do(error) or self._left(deadline) <= 0:
                    raise
                failure = error
        assert failure is not None, "there is an address to try"
        raise failure

    def expect_direct(self, inputs: Inputs, *, bound: bool = False) -> None:
        """Raise UpstreamNoUdp or UpstreamNoBind where the way of these datagrams, or of a peer that is waited for,
        leads through an upstream first. `bound`: it goes out, but from a port of our own, which no upstream gives.
        """
        waited = inputs.transport in INBOUND
        first = (self._routes.choose_inbound(inputs) if waited else self._routes.choose(inputs)).via[0]
        if first != DIRECT:
            kind, what = (
                (UpstreamNoBind, "listens") if waited or bound else (UpstreamNoUdp, "carries datagrams")
            )
            raise kind(f"the route leads through it, and no upstream {what} for us", upstream=first)

    def is_direct(self, inputs: Inputs) -> bool:
        """Whether the first way of what goes out leads through no upstream."""
        return self._routes.choose(inputs).via[0] == DIRECT

    async def _by(
        self, chosen: Chosen, group: Sequence[IPAddress], host: str | None, port: int, deadline: float
    ) -> Reached:
        """One route: its ways in turn. Each has its share of the time that is left."""
        names = sorted(chosen.via, key=self._rests)  # stable: in their order, those that rest last
        failures: list[UpstreamError] = []
        for place, name in enumerate(names):
            if name == DIRECT:
                leg, address = await dial(self._poller, group, port, self._left(deadline))
                return Reached(leg, address, None, chosen.route)
            share = self._poller.loop.time() + self._left(deadline) / (len(names) - place)
            try:
                carrier, address = await self._through(name, group, host, port, share, deadline)
            except (UpstreamUnavailable, UpstreamLoginRefused) as error:
                failures.append(error)
            else:
                return Reached(carrier, address, name, chosen.route)
        if len(failures) == 1:
            raise failures[0]
        every = "; ".join(failure.detail for failure in failures)
        raise UpstreamUnavailable(every, side=Side.EXTERNAL)

    async def _through(
        self,
        name: str,
        group: Sequence[IPAddress],
        host: str | None,
        port: int,
        share: float,
        deadline: float,
    ) -> tuple[Carrier, IPAddress]:
        """One upstream, asked for one address after another as long as it says that it cannot reach them."""
        by_name = host is not None and self._hops[name][-1].send == "name"
        candidates = group[:1] if by_name else interleave(group)[:ATTEMPTS_MAX]
        failure: LinkError | None = None
        for address in candidates:
            asked_for = host if by_name and host is not None else address
            try:
                return await self._ask(name, asked_for, port, share, deadline), address
            except (UpstreamRefused, TimedOut) as error:
                failure = error
                if not _another_may_do(error) or self._left(deadline) <= 0:
                    raise
        assert failure is not None, "there is an address to try"
        raise failure

    async def _ask(
        self, name: str, asked_for: str | IPAddress, port: int, share: float, deadline: float
    ) -> Carrier:
        """One upstream, one destination; what comes of it is told to `health`."""
        way = self._hops[name]
        names = [hop.name for hop in way]
        self.health.trying(names)
        progress = Progress(name)
        try:
            try:
                async with asyncio.timeout_at(share) as scope:
                    carrier = await dial_through(
                        self._poller,
                        self._resolver,
                        way,
                        asked_for,
                        port,
                        self._left(deadline),
                        progress,
                        lambda: scope.reschedule(deadline),
                    )
            except TimeoutError:
                raise progress.too_late() from None
        except UpstreamUnavailable as error:
            if error.asked:
                self.health.silent(error.upstream, f"{asked_for} {port}")
            else:
                self.health.failed(error.upstream)
            raise
        except UpstreamLoginRefused as error:
            self.health.failed(error.upstream)
            raise
        except (UpstreamRefused, TimedOut):
            self.health.well(names)
            raise
        self.health.well(names)
        return carrier

    def _rests(self, name: str) -> bool:
        return name != DIRECT and self.health.resting([hop.name for hop in self._hops[name]])

    def _left(self, deadline: float) -> float:
        return max(deadline - self._poller.loop.time(), 0.0)


def _another_may_do(error: LinkError) -> bool:
    """Whether another address of the same destination is worth a try."""
    if isinstance(error, UpstreamRefused):
        return error.hint not in (ReplyHint.NOT_ALLOWED, ReplyHint.BUSY)
    return isinstance(error, ConnectionRefused | Unreachable | TimedOut | UpstreamUnavailable)
