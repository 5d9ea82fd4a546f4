"""Each rule as the kernel could see it: intervals of sources, ports and destinations, and how sure a match is.

What a rule says of names, users or hours the kernel cannot see: where all the rest fits, such a rule matches *maybe*.
The guard is part of a rule's destinations: one that allows has none among guarded addresses that it does not name
outright. Every address in disguise (`policy.address.forms`) is left to the service, so that none is met here.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import Final, NamedTuple

from doorward.packetfilter.intervals import Interval, Row, common, of_networks, union, whole, without
from doorward.packetfilter.model import Transport
from doorward.policy.guard import GUARDED_NETWORKS, LOCALHOST, LOOPBACK, Guarded, guard
from doorward.policy.model import MINUTES_PER_WEEK, PORT_MAX, Action, PortRange, Rule

EVERY_PORT: Final = Interval(0, PORT_MAX)

# Where an IPv4 address is part of an IPv6 one; ISATAP's lie everywhere and are found by a mask (see orders).
DISGUISES: Final = of_networks(
    map(
        ip_network,
        (
            "::/96",
            "::ffff:0:0/96",
            "::ffff:0:0:0/96",
            "64:ff9b::/96",
            "64:ff9b:1::/48",
            "2001::/32",
            "2002::/16",
        ),
    ),
    6,
)
_NOT_DISGUISED: Final = (Interval(0, 1),)  # :: and ::1


class Shape(NamedTuple):
    """One rule, for one IP version and transport. `certain` and `maybe` are disjoint rows of destinations."""

    sources: Row
    ports: Row
    certain: Row
    maybe: Row


class Ground(NamedTuple):
    """What does not depend on rules: the guarded addresses of one IP version, as rows, with what guards them."""

    version: int
    guarded: tuple[tuple[Guarded, Row], ...]

    @property
    def all(self) -> Row:
        """Everything that is guarded."""
        return union(interval for _, row in self.guarded for interval in row)


def disguises(version: int) -> Row:
    """Addresses that are others, too."""
    return without(DISGUISES, _NOT_DISGUISED, whole(6)) if version == 6 else ()


def ground(version: int, *, own: bool) -> Ground:
    """The guard, taken from its own answers: asked once for each stretch of addresses that it treats alike.

    Addresses in disguise are in no row.
    """
    marks = {0}
    for network in GUARDED_NETWORKS:
        if network.version == version:
            marks |= {int(network.network_address), int(network.broadcast_address) + 1}
    hidden = disguises(version)
    marks |= {mark for first, last in hidden for mark in (first, last + 1)}
    limits = whole(version)
    starts = sorted(mark for mark in marks if mark <= limits.last)
    kind = IPv4Address if version == 4 else IPv6Address
    found: dict[Guarded, list[Interval]] = {}
    for first, following in zip(starts, [*starts[1:], limits.last + 1], strict=True):
        guarded = guard(kind(first), own=own)
        if guarded is not None and not common(hidden, (Interval(first, first),)):
            if guarded.block.prefixlen == limits.last.bit_length():
                guarded = guarded._replace(block=ip_network(kind(0)))  # each address is a block of its own
            found.setdefault(guarded, []).append(Interval(first, following - 1))
    return Ground(version, tuple((guarded, union(row)) for guarded, row in found.items()))


def shape(rule: Rule, transport: Transport, version: int, base: Ground | None = None) -> Shape | None:
    """The rule, or None if it has nothing to say of such packets.

    With `base` only its guarded addresses are looked at, and a rule that allows has to name them; without, the guard
    is somebody else's business.
    """
    if rule.process is not None:
        return None  # whoever sends packets through a gateway was not launched by us
    ports = ports_of(rule.ports, transport)
    sources = (whole(version),) if rule.sources is None else of_networks(rule.sources, version)
    certain, maybe = _destinations(rule, version)
    if base is not None:
        certain, maybe = _guarded(rule, base, certain, maybe)
    if rule.users is not None or rule.groups is not None or not _is_always(rule):
        certain, maybe = (), union((*certain, *maybe))
    if not ports or not sources or not (certain or maybe):
        return None
    return Shape(sources, ports, certain, maybe)


def ports_of(ports: Iterable[PortRange] | None, transport: Transport) -> Row:
    """The ports of one transport; None is every port."""
    if ports is None:
        return (EVERY_PORT,)
    return union(Interval(first, last) for wanted, first, last in ports if wanted == transport)


def _destinations(rule: Rule, version: int) -> tuple[Row, Row]:
    everywhere = (whole(version),)
    if rule.to_names is None and rule.to_networks is None:
        return everywhere, ()
    certain = of_networks(rule.to_networks or (), version)
    return certain, without(everywhere, certain, whole(version)) if rule.to_names else ()


def _guarded(rule: Rule, base: Ground, certain: Row, maybe: Row) -> tuple[Row, Row]:
    """What a rule says of guarded addresses: one that allows, only of those that it names outright."""
    if rule.action is Action.DENY:
        return common(certain, base.all), common(maybe, base.all)
    allowed: list[Interval] = []
    possible: list[Interval] = []
    for guarded, row in base.guarded:
        narrow = [n for n in rule.to_networks or () if n.prefixlen >= guarded.block.prefixlen]
        opened = common(of_networks(narrow, base.version), row)
        allowed += opened
        if guarded.reason == LOOPBACK and LOCALHOST in (rule.to_names or ()):
            possible += without(row, opened, whole(base.version))
    return union(allowed), union(possible)


def _is_always(rule: Rule) -> bool:
    if rule.windows is None:
        return True
    return union(Interval(w.start, w.end - 1) for w in rule.windows if w.end > w.start)[:1] == (
        Interval(0, MINUTES_PER_WEEK - 1),
    )
