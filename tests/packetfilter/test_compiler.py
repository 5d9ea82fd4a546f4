"""The kernel never says anything but what the policy says, whatever the name, the user, the groups and the hour."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from ipaddress import ip_address, ip_network
from itertools import product
from typing import Any, Final

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from tests.packetfilter.interpreter import Interpreter, Packet
from tests.policy.reference import ADDRESSES, HOSTS, RULES

from doorward.packetfilter import planting
from doorward.packetfilter.compiler import Interest, compile_table
from doorward.packetfilter.model import Capture, Ports, Table
from doorward.policy.address import forms
from doorward.policy.evaluation import Policy
from doorward.policy.guard import GUARDED_NETWORKS, LABEL_PREFIX
from doorward.policy.model import UNKNOWN, Action, Decision, Inputs, IPAddress, PortRange, Rule, Window
from doorward.policy.routes import Route, Routes

CAPTURE: Final = Capture(networks=("10.0.0.0/8", "2001:db8::/32"), tcp_port=15001, udp_port=15002)
CLIENT: Final = ip_address("10.0.0.1")
SERVER: Final = ip_address("198.51.100.7")
EDGES: Final = [
    *map(
        ip_address,
        ("9.255.255.255", "10.0.0.3", "10.0.0.4", "11.0.0.0", "2001:db9::", "2001:db8::5efe:a00:1"),
    ),
    *map(ip_address, ("::", "fe80::1", "ff02::1", "224.0.0.1", "255.255.255.255", "0.0.0.1", "128.0.0.0")),
    *map(
        ip_address, ("::ffff:ffff", "64:ff9b:1::1", "2001:0:1::1", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff")
    ),
]
PACKETS: Final = st.builds(
    Packet,
    transport=st.sampled_from(["tcp", "udp"]),
    source=st.sampled_from([*ADDRESSES, *EDGES]),
    destination=st.sampled_from([*ADDRESSES, *EDGES]),
    port=st.sampled_from([0, 1, 52, 53, 54, 442, 443, 444, 1000, 1001, 8080, 65_535]),
    is_answer=st.booleans(),
).filter(lambda packet: packet.source.version == packet.destination.version)
WAYS: Final = RULES.map(
    lambda rules: Routes(
        [
            Route(Rule(**{**_fields(rule), "action": Action.ALLOW}), ("direct",) if at % 2 else ("corp",))
            for at, rule in enumerate(rules[:3])
        ]
    )
)
INTERESTS: Final = st.lists(
    st.builds(
        Interest,
        ports=st.none() | st.just((PortRange("tcp", 443, 443), PortRange("udp", 50, 60))),
        off=st.frozensets(st.sampled_from([f"rule {n}" for n in range(6)])),
    ),
    max_size=2,
)

# Making a failure smaller would go through whole policies for minutes.
PHASES: Final = (Phase.explicit, Phase.reuse, Phase.generate)


def _fields(rule: Rule) -> dict[str, Any]:
    return {name: getattr(rule, name) for name in Rule.__slots__}


def everything_that_it_could_be(packet: Packet, *, own: bool) -> Iterator[Inputs]:
    """What the service could know of the flow in addition."""
    users: tuple[tuple[Any, frozenset[str]], ...]
    users = ((UNKNOWN, frozenset()), (None, frozenset()), ("kim", frozenset()), ("x", frozenset({"staff"})))
    for host, (user, groups), minute in product((None, *HOSTS, "c.b.a.org"), users, (0, 10, 119, 10_079)):
        yield Inputs(
            packet.transport,  # type: ignore[arg-type]
            packet.source, host, packet.destination, packet.port, user, groups, minute, own=own,
        )  # fmt: skip


@settings(max_examples=100, deadline=None, phases=PHASES)
@given(rules=RULES, packets=st.lists(PACKETS, min_size=12, max_size=12))
def test_what_the_kernel_says_is_what_the_policy_says(rules: tuple[Rule, ...], packets: list[Packet]) -> None:
    policy = Policy(rules, "r")
    kernel = Interpreter(compile_table(policy, CAPTURE))
    for packet in packets:
        said, counter = kernel.judge(packet)
        answers = [policy.judge(inputs) for inputs in everything_that_it_could_be(packet, own=False)]
        if said != "up":
            assert {answer.action for answer in answers} == {Action(said)}, packet
            if not packet.is_answer:
                assert counter is not None
                outcome = kernel.table.outcomes[int(counter.removeprefix("o"))]
                told = {(answer.rule, answer.rule_line, answer.reason) for answer in answers}
                assert told == {(outcome.rule, outcome.line, outcome.reason)}
        else:
            assert (
                len({answer.rule for answer in answers}) > 1 or may_hide(packet) or hangs(rules, answers)
            ), packet


def may_hide(packet: Packet) -> bool:
    """One of its addresses is another, too."""
    return any(len(forms(end)) > 1 or end != forms(end)[0] for end in (packet.source, packet.destination))


def hangs(rules: Sequence[Rule], answers: Sequence[Decision]) -> bool:
    """All answers name one rule, which does not match for certain all the same."""
    names = {answer.rule for answer in answers}
    named = [rule for rule in rules if rule.name in names]
    seen = any(
        r.users is not None or r.groups is not None or r.windows is not None or r.to_names for r in rules
    )
    return bool(named or names) and seen


@settings(max_examples=60, deadline=None, phases=PHASES)
@given(rules=RULES, packets=st.lists(PACKETS, min_size=12, max_size=12))
def test_an_address_of_this_machine_is_open_only_to_whom_the_policy_names_outright(
    rules: tuple[Rule, ...], packets: list[Packet]
) -> None:
    policy = Policy(rules, "r")
    kernel = Interpreter(compile_table(policy, CAPTURE))
    for packet in packets:
        said, _ = kernel.judge(packet, own=True)
        assert said != "up"
        if said == "allow":
            answers = [policy.judge(inputs) for inputs in everything_that_it_could_be(packet, own=True)]
            assert {answer.action for answer in answers} == {Action.ALLOW}, packet


@settings(max_examples=60, deadline=None, phases=PHASES)
@given(rules=RULES, routes=WAYS, interests=INTERESTS, packets=st.lists(PACKETS, min_size=10, max_size=10))
def test_what_goes_through_an_upstream_or_a_filter_comes_up(
    rules: tuple[Rule, ...], routes: Routes, interests: list[Interest], packets: list[Packet]
) -> None:
    policy = Policy(rules, "r")
    plain = Interpreter(compile_table(policy, CAPTURE))
    kernel = Interpreter(compile_table(policy, CAPTURE, routes, interests))
    for packet in packets:
        said, before = kernel.judge(packet).action, plain.judge(packet).action
        assert said == before or (before, said) == ("allow", "up")
        if said != "allow":
            continue
        for inputs in everything_that_it_could_be(packet, own=False):
            assert routes.choose(inputs).via == ("direct",)
            rule = policy.judge(inputs).rule
            for interest in interests:
                assert rule in interest.off or not covers(interest.ports, packet)


def covers(ports: tuple[PortRange, ...] | None, packet: Packet) -> bool:
    return ports is None or any(p.covers(packet.transport, packet.port) for p in ports)  # type: ignore[arg-type]


def compiled(*rules: Rule, capture: Capture = CAPTURE) -> Interpreter:
    return Interpreter(compile_table(Policy(rules, "r"), capture))


def allow(name: str = "yes", **fields: object) -> Rule:
    return Rule(name, Action.ALLOW, 7, **fields)  # type: ignore[arg-type]  # the fields of Rule


def deny(name: str = "no", **fields: object) -> Rule:
    return Rule(name, Action.DENY, 3, **fields)  # type: ignore[arg-type]  # the fields of Rule


def at(port: int, to: IPAddress = SERVER) -> Packet:
    return Packet("tcp", CLIENT, to, port)


def test_what_addresses_and_ports_settle_does_not_come_up() -> None:
    kernel = compiled(
        deny(ports=(PortRange("tcp", 25, 25),)),
        allow(sources=(ip_network("10.0.0.0/8"),), to_networks=(ip_network("198.51.100.0/24"),)),
        allow("named", to_names=("example.org",), ports=(PortRange("tcp", 443, 443),)),
    )
    elsewhere = ip_address("203.0.113.1")
    assert [kernel.judge(at(25)).action, kernel.judge(at(443)).action] == ["deny", "allow"]
    assert [kernel.judge(at(443, elsewhere)).action, kernel.judge(at(80, elsewhere)).action] == ["up", "deny"]


@pytest.mark.parametrize("network", GUARDED_NETWORKS, ids=str)
def test_the_guard_holds_in_the_kernel(network: Any) -> None:
    kernel = compiled(allow(), allow("by name", to_names=("example.org",)))
    client = CLIENT if network.version == 4 else ip_address("2001:db8::1")
    packets = [Packet("udp", client, at, 443) for at in (network.network_address, network.broadcast_address)]
    for packet in packets:
        said = kernel.judge(packet)
        assert said.action == "deny", packet
        outcome = kernel.table.outcomes[int(str(said.counter)[1:])]
        assert str(outcome.rule).startswith(LABEL_PREFIX)
    assert compiled(allow(to_networks=(network,))).judge(packets[0]).action == "allow", "named outright"


def test_how_much_the_kernel_decides_can_be_chosen() -> None:
    rules = (deny(ports=(PortRange("tcp", 25, 25),)), allow())
    loopback = at(25, ip_address("127.0.0.1"))
    for settles, said in (("everything", "deny allow"), ("denials", "deny up"), ("nothing", "up up")):
        capture = Capture(networks=("10.0.0.0/8",), tcp_port=1, udp_port=1, settles=settles)  # type: ignore[arg-type]
        kernel = compiled(*rules, capture=capture)
        assert " ".join((kernel.judge(at(25)).action, kernel.judge(at(26)).action)) == said
        guarded = compiled(allow(), capture=capture)
        assert guarded.judge(loopback).action == "deny"


def test_ports_that_come_up_do_so_whatever_the_policy_says() -> None:
    capture = Capture(networks=("10.0.0.0/8",), tcp_port=1, udp_port=1, up=(Ports("udp", 53, 53),))
    kernel = compiled(allow(), capture=capture)
    for own in (True, False):
        assert kernel.judge(Packet("udp", CLIENT, SERVER, 53), own=own).action == "up"
        assert kernel.judge(Packet("tcp", CLIENT, SERVER, 53), own=own).action == ("deny" if own else "allow")
    assert compiled(deny(), capture=capture).judge(Packet("udp", CLIENT, SERVER, 53)).action == "up"


def test_hours_that_are_always_are_no_hours() -> None:
    assert compiled(allow(windows=(Window(0, 10_080),))).judge(at(1)).action == "allow"
    assert compiled(allow(windows=(Window(0, 10_079),))).judge(at(1)).action == "up"


def large(count: int) -> Table:
    rules = [
        Rule(
            f"rule {n}", Action.ALLOW if n % 3 else Action.DENY, n,
            sources=(ip_network(f"10.{n % 20}.0.0/16"),) if n % 2 else None,
            to_networks=(ip_network((0x2E00_0000 + n * 7919 % 2**24, 32)),),
            ports=(PortRange("tcp", n % 50, n % 50 + n % 4),),
        )
        for n in range(count)
    ]  # fmt: skip
    return compile_table(Policy(rules, "r"), CAPTURE)


def test_a_large_policy_makes_few_maps() -> None:
    table = large(2_000)
    assert table.left_out == 0
    assert len(table.outcomes) > 2_000
    assert sum(len(step.cases) > 3 for step in table.steps) < 150
    assert table == large(2_000), "the same every time"


def test_what_is_too_large_comes_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planting, "WORK_MAX", 500)
    table = large(300)
    assert table.left_out > 0
    kernel = Interpreter(table)
    packet = Packet("tcp", CLIENT, ip_address(0x2E00_0000), 0)
    assert kernel.judge(packet).action == "up"
    assert kernel.judge(packet, own=True).action == "deny"
    monkeypatch.setattr(planting, "CASES_MAX", 20)
    assert large(50).left_out > 0


def test_answers_fare_as_what_they_answer() -> None:
    kernel = compiled(
        deny(ports=(PortRange("tcp", 25, 25),)),
        allow(ports=(PortRange("tcp", 80, 443), PortRange("tcp", 8000, 8999))),
    )
    for port, action in ((25, "deny"), (80, "allow"), (443, "allow"), (8500, "allow"), (9000, "deny")):
        assert kernel.judge(at(port)).action == action
        assert kernel.judge(at(port)._replace(is_answer=True)).action == action


def test_the_first_route_decides_alone() -> None:
    direct = Route(Rule("near", Action.ALLOW, to_networks=(ip_network("198.51.100.0/24"),)), ("direct",))
    corp = Route(Rule("rest", Action.ALLOW), ("corp", "direct"))
    kernel = Interpreter(compile_table(Policy([allow()], "r"), CAPTURE, Routes([direct, corp])))
    assert kernel.judge(at(80)).action == "allow"
    assert kernel.judge(at(80, ip_address("203.0.113.1"))).action == "up"
