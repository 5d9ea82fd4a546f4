"""What the compiler weighs against each other, in order: the policy's rules with the first and the last word around
them, and what is asked where a rule allows: routes, then filters.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

from doorward.packetfilter.intervals import Row, whole
from doorward.packetfilter.model import Capture, Outcome, Transport, Version
from doorward.packetfilter.planting import UP
from doorward.packetfilter.shapes import EVERY_PORT, Ground, Shape, ports_of, shape
from doorward.policy.evaluation import DEFAULT_DENY, RULE_ALLOW, RULE_DENY, Policy
from doorward.policy.guard import LABEL_PREFIX, OWN_ADDRESS
from doorward.policy.model import Action, PortRange
from doorward.policy.routes import DIRECT, Routes

OWN_ADDRESS_REFUSED: Final = Outcome("deny", LABEL_PREFIX + "own address", 0, OWN_ADDRESS)
DIRECTLY: Final = Outcome("allow")
DEFAULT: Final = Outcome("deny", None, 0, DEFAULT_DENY)


class Interest(NamedTuple):
    """Where a filter wants to hear of what is allowed: on these ports (None: on all), but not where a rule is `off`."""

    ports: tuple[PortRange, ...] | None
    off: frozenset[str] = frozenset()


class Entry(NamedTuple):
    """`says` is the outcome where it matches for certain, of a flow that was allowed if it is no rule."""

    shape: Shape
    kind: Literal["rule", "route", "filter"]
    says: Outcome
    off: frozenset[str] = frozenset()


class View(NamedTuple):
    """The packets of one entrance. `base` holds the guarded addresses, if they are these packets' destinations."""

    version: Version
    transport: Transport
    own: bool
    base: Ground | None


def entries_of(
    view: View, capture: Capture, policy: Policy, routes: Routes, interests: Sequence[Interest]
) -> list[Entry]:
    """All that has a say, in the order in which they are asked."""
    found = [_everywhere(view, ports_of(_up(capture), view.transport), "rule", UP)]
    found += _rules(view, capture, policy)
    if view.base is not None:
        for guarded, row in view.base.guarded:
            of_guard = Shape((whole(view.version),), (EVERY_PORT,), row, ())
            found.append(Entry(of_guard, "rule", Outcome("deny", guarded.label, 0, guarded.reason)))
    found.append(_everywhere(view, (EVERY_PORT,), "rule", _settled(capture, view, DEFAULT)))
    if not view.own:  # nobody relays what is for this machine
        for route in routes.routes:
            of_route = shape(route.rule, view.transport, view.version)
            if of_route is not None:
                found.append(Entry(of_route, "route", DIRECTLY if route.via == (DIRECT,) else UP))
        for interest in interests:
            ports = ports_of(interest.ports, view.transport)
            found.append(_everywhere(view, ports, "filter", UP)._replace(off=interest.off))
    return [entry for entry in found if entry.shape.ports]


def _rules(view: View, capture: Capture, policy: Policy) -> list[Entry]:
    found = []
    for rule in policy.rules:
        of_rule = shape(rule, view.transport, view.version, view.base)
        if of_rule is not None:
            denies = rule.action is Action.DENY
            says = Outcome("deny", rule.name, rule.line, RULE_DENY) if denies else None
            says = says or Outcome("allow", rule.name, rule.line, RULE_ALLOW)
            found.append(Entry(of_rule, "rule", _settled(capture, view, says)))
    return found


def _settled(capture: Capture, view: View, outcome: Outcome) -> Outcome:
    """The outcome, if the kernel is to decide such things."""
    if view.own or capture.settles == "everything":
        return outcome
    return outcome if capture.settles == "denials" and outcome.action == "deny" else UP


def _up(capture: Capture) -> list[PortRange]:
    return [PortRange(p.transport, p.first, p.last) for p in capture.up]


def _everywhere(view: View, ports: Row, kind: Literal["rule", "filter"], says: Outcome) -> Entry:
    return Entry(Shape((whole(view.version),), ports, (whole(view.version),), ()), kind, says)
