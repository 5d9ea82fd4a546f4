"""Whether any connection at all could be allowed to a name or an address: for who asks without a port, as DNS does.

The question is the judge's with the port left open: the answer is no exactly where `Policy.judge` says no for each
port of TCP and UDP. A rule that denies takes its ports from all that come after it. Fields that are unknown mean what
they mean to the judge. Peers that arrive (`tcp-in`) are another matter and never count.

Pure, as the judge is. Rules are found by the same index, built once more from rules that name no ports.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final, Literal, TypeAlias

from doorward.policy.address import forms
from doorward.policy.candidates import UNSURE, Candidates
from doorward.policy.evaluation import (
    DEFAULT_DENY,
    NEEDS_ADDRESS,
    NEEDS_USER,
    RULE_ALLOW,
    RULE_DENY,
    USER_NEEDED,
    Policy,
    Prepared,
)
from doorward.policy.guard import Guarded, guard
from doorward.policy.model import PORT_MAX, UNKNOWN, Action, Decision, Inputs, IPNetwork, PortRange, Rule
from doorward.policy.networks import AddressSet

Ports: TypeAlias = Sequence[PortRange]

EVERY_PORT: Final[Ports] = (PortRange("tcp", 1, PORT_MAX), PortRange("udp", 1, PORT_MAX))
"""Where a connection can go to; nothing connects to port 0."""

_FIELDS: Final[dict[str, Literal["user", "address"]]] = {NEEDS_USER: "user", NEEDS_ADDRESS: "address"}


class Possibilities:
    """What one policy could allow. Nothing of it changes once it is built."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        portless = [replace(rule, ports=None) for rule in policy.rules]
        sets: dict[tuple[IPNetwork, ...], AddressSet] = {}
        self._candidates = Candidates(portless)
        self._prepared = tuple(Prepared(rule, sets) for rule in portless)

    def judge(self, inputs: Inputs) -> Decision:
        """Allow or needs if some port could be reached, deny if none; `transport` and `port` of the inputs are ignored.

        A yes names the first rule that allows some port. A no names what refuses the last ports: a rule, the guard, or
        nobody (`default_deny`); but first of all a rule for users, if the client could be one of them and has not
        said so.
        """
        inputs = inputs._replace(transport="tcp", port=0)
        guarded = None if inputs.address is UNKNOWN else guard(inputs.address, own=inputs.own)
        left, userless = EVERY_PORT, None
        for code, rule, prepared in self._matching(inputs, guarded):
            common = overlap(left, rule.ports)
            if not common:
                continue
            if prepared.names_users:
                if inputs.user is UNKNOWN:
                    return self._answer(inputs, Action.NEEDS, NEEDS_USER, rule)
                if inputs.user is None and not code & UNSURE:
                    userless = userless or self._answer(inputs, Action.DENY, USER_NEEDED, rule)
                    left = without(left, common)
                if inputs.user is None or not prepared.lists(inputs.user, inputs.groups):
                    continue
            if prepared.allows:
                if inputs.address is UNKNOWN:
                    return self._answer(inputs, Action.NEEDS, NEEDS_ADDRESS, rule)
                return self._answer(inputs, Action.ALLOW, RULE_ALLOW, rule)
            if not code & UNSURE:
                left = without(left, common)
                if not left:
                    return userless or self._answer(inputs, Action.DENY, RULE_DENY, rule)
        return userless or self._last_word(inputs, guarded)

    def _matching(self, inputs: Inputs, guarded: Guarded | None) -> Iterator[tuple[int, Rule, Prepared]]:
        """The rules that match but for port and user, in their order, with their codes."""
        client_forms = forms(inputs.client)
        address_forms = UNKNOWN if inputs.address is UNKNOWN else forms(inputs.address)
        named: frozenset[int] = frozenset()
        if guarded is not None and address_forms is not UNKNOWN:
            named = self._candidates.naming_outright(address_forms[0], guarded.block.prefixlen)
        for code in self._candidates.of(inputs, client_forms, address_forms):
            prepared = self._prepared[code >> 1]
            if not prepared.admits(inputs, client_forms):
                continue
            if guarded is None or not prepared.allows or prepared.opens(code, named, inputs.host, guarded):
                yield code, self.policy.rules[code >> 1], prepared

    def _answer(self, inputs: Inputs, action: Action, reason: str, rule: Rule) -> Decision:
        return Decision(
            action, reason, inputs, self.policy.revision, rule.name, rule.line, _FIELDS.get(reason)
        )

    def _last_word(self, inputs: Inputs, guarded: Guarded | None) -> Decision:
        if guarded is not None:
            return Decision(Action.DENY, guarded.reason, inputs, self.policy.revision, guarded.label)
        return Decision(Action.DENY, DEFAULT_DENY, inputs, self.policy.revision)


def overlap(left: Ports, wanted: Ports | None) -> Ports:
    """What both have; None is every port."""
    if wanted is None:
        return left
    found = []
    for transport, first, last in left:
        for other, wanted_first, wanted_last in wanted:
            low, high = max(first, wanted_first), min(last, wanted_last)
            if transport == other and low <= high:
                found.append(PortRange(transport, low, high))
    return found


def without(left: Ports, taken: Ports) -> Ports:
    """What is left of the first."""
    for transport, first, last in taken:
        rest: list[PortRange] = []
        for ports in left:
            if ports.transport != transport or last < ports.first or ports.last < first:
                rest.append(ports)
                continue
            if ports.first < first:
                rest.append(PortRange(transport, ports.first, first - 1))
            if last < ports.last:
                rest.append(PortRange(transport, last + 1, ports.last))
        left = rest
    return left
