"""The policy's meaning with nothing clever about it, and policies small enough to collide.

The judge keeps indexes; this one tries every rule. Hypothesis draws `RULES` and `INPUTS` from a few addresses,
names and ports, so that rules overlap.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address, ip_network
from typing import Final

from hypothesis import strategies as st

from doorward.policy.address import canonical, forms
from doorward.policy.guard import guard
from doorward.policy.model import (
    UNKNOWN,
    Action,
    Decision,
    Inputs,
    IPAddress,
    IPNetwork,
    PortRange,
    Rule,
    Window,
)
from doorward.policy.names import matches
from doorward.policy.schedule import contains

ADDRESSES: Final = [
    *map(ip_address, ("10.0.0.1", "10.0.0.2", "127.0.0.1", "169.254.169.254", "::1", "2001:db8::1")),
    *map(ip_address, ("2002:a00:1::1", "64:ff9b::7f00:1", "::ffff:10.0.0.1")),
]
NETWORKS: Final = [
    *map(
        ip_network, ("10.0.0.0/8", "10.0.0.1/32", "10.0.0.0/30", "0.0.0.0/0", "127.0.0.0/8", "127.0.0.1/32")
    ),
    *map(
        ip_network, ("169.254.0.0/16", "169.254.169.254/32", "::/0", "::1/128", "2001:db8::/32", "2002::/16")
    ),
    ip_network("64:ff9b::7f00:1/128"),
]
HOSTS: Final = ["localhost", "a.org", "b.a.org", "org"]
PATTERNS: Final = ["localhost", "a.org", "*.a.org", ".a.org", ".org"]
PROGRAMS: Final = ["git", "/usr/bin/git", "curl"]
PORTS: Final = [
    *(PortRange("tcp", 443, 443), PortRange("tcp", 1, 1000), PortRange("udp", 53, 53)),
    *(PortRange("tcp-in", 0, 65_535), PortRange("tcp-in", 443, 8080), PortRange("udp-in", 53, 53)),
]


def maybe_some(values: Sequence[object]) -> st.SearchStrategy[object]:
    return st.none() | st.lists(st.sampled_from(values), max_size=2, unique=True).map(tuple)


RULES: Final = st.lists(
    st.builds(
        Rule,
        name=st.just(""),
        action=st.sampled_from([Action.ALLOW, Action.ALLOW, Action.DENY]),
        sources=maybe_some(NETWORKS),
        to_networks=maybe_some(NETWORKS),
        to_names=maybe_some([*PATTERNS]),
        ports=maybe_some([*PORTS]),
        users=st.none() | st.frozensets(st.sampled_from(["kim", "lee"])),
        groups=st.none() | st.frozensets(st.sampled_from(["staff"])),
        windows=st.none() | st.just((Window(0, 10), Window(10_000, 10_200))),
        process=st.none() | st.none() | st.frozensets(st.sampled_from(PROGRAMS), min_size=1),
    ),
    max_size=8,
).map(lambda rules: tuple(_renamed(rule, number) for number, rule in enumerate(rules)))

INPUTS: Final = st.builds(
    Inputs,
    transport=st.sampled_from(["tcp", "udp", "tcp-in", "udp-in"]),
    client=st.sampled_from(ADDRESSES),
    host=st.sampled_from([None, *HOSTS]),
    address=st.sampled_from([UNKNOWN, *ADDRESSES]),
    port=st.sampled_from([0, 53, 443, 8080]),
    user=st.sampled_from([None, UNKNOWN, "kim", "lee"]),
    groups=st.sampled_from([frozenset(), frozenset({"staff"})]),
    minute_of_week=st.sampled_from([0, 9, 10, 119, 120, 9_999, 10_079]),
    own=st.booleans(),
    process=st.just(frozenset()) | st.frozensets(st.sampled_from(PROGRAMS)),
)


def _renamed(rule: Rule, number: int) -> Rule:
    return Rule(
        f"rule {number}",
        rule.action,
        number,
        rule.sources,
        rule.to_networks,
        rule.to_names,
        rule.ports,
        rule.users,
        rule.groups,
        rule.windows,
        rule.process,
    )


def reference_judge(rules: tuple[Rule, ...], inputs: Inputs) -> Decision:
    """The policy's meaning with nothing clever about it."""
    kind = None if inputs.address is UNKNOWN else guard(inputs.address, own=inputs.own)
    for rule in rules:
        to = _to(rule, inputs)
        if kind is not None and rule.action is Action.ALLOW and not _outright(rule, inputs):
            to = False
        if to is False or not _protocol_from_when(rule, inputs):
            continue
        allows = rule.action is Action.ALLOW
        if rule.users is not None or rule.groups is not None:
            if inputs.user is UNKNOWN:
                return Decision(Action.NEEDS, "needs_user", inputs, "r", rule.name, rule.line, "user")
            if inputs.user is None and to is True:
                return Decision(Action.DENY, "user_needed", inputs, "r", rule.name, rule.line)
            if inputs.user is None:
                continue
            if inputs.user not in (rule.users or ()) and not (rule.groups or frozenset()) & inputs.groups:
                continue
        if allows and inputs.address is UNKNOWN:
            return Decision(Action.NEEDS, "needs_address", inputs, "r", rule.name, rule.line, "address")
        if to is True:
            return Decision(rule.action, f"rule_{rule.action}", inputs, "r", rule.name, rule.line)
    if kind is not None:
        return Decision(Action.DENY, kind.reason, inputs, "r", kind.label)
    return Decision(Action.DENY, "default_deny", inputs, "r")


def _inside(rule: Rule, address: IPAddress, among: tuple[IPNetwork, ...]) -> bool:
    judged = forms(address)[:1] if rule.action is Action.ALLOW else forms(address)
    return any(form in network for network in among for form in judged)


def _protocol_from_when(rule: Rule, inputs: Inputs) -> bool:
    return (
        _protocol(rule, inputs)
        and (rule.sources is None or _inside(rule, inputs.client, rule.sources))
        and (rule.windows is None or contains(rule.windows, inputs.minute_of_week))
        and (rule.process is None or any(name in rule.process for name in inputs.process))
    )


def _protocol(rule: Rule, inputs: Inputs) -> bool:
    if rule.ports is None:
        return rule.action is Action.DENY or inputs.transport in ("tcp", "udp")
    return any(
        transport == inputs.transport and first <= inputs.port <= last
        for transport, first, last in rule.ports
    )


def _to(rule: Rule, inputs: Inputs) -> bool | None:
    """Whether `to` matches; None if nobody knows yet."""
    if rule.to_names is None and rule.to_networks is None:
        return True
    host = inputs.host
    if host is not None and any(matches(pattern, host) for pattern in rule.to_names or ()):
        return True
    if not rule.to_networks:
        return False
    return None if inputs.address is UNKNOWN else _inside(rule, inputs.address, rule.to_networks)


def _outright(rule: Rule, inputs: Inputs) -> bool:
    assert inputs.address is not UNKNOWN
    kind = guard(inputs.address, own=inputs.own)
    assert kind is not None
    if (
        inputs.host == "localhost"
        and "localhost" in (rule.to_names or ())
        and kind.reason == "guarded_loopback"
    ):
        return True
    address = canonical(inputs.address)
    return any(address in n and n.prefixlen >= kind.block.prefixlen for n in rule.to_networks or ())
