from __future__ import annotations

from ipaddress import ip_address, ip_network

from hypothesis import given
from hypothesis import strategies as st

from doorward.policy.address import forms
from doorward.policy.candidates import UNSURE, Candidates, aligned_blocks
from doorward.policy.model import UNKNOWN, Action, Inputs, PortRange, Rule, Transport

ANYONE = Inputs("tcp", ip_address("192.0.2.1"), None, ip_address("198.51.100.1"), 443, None, frozenset(), 0)


def numbers(rules: list[Rule], inputs: Inputs) -> list[int]:
    """The rules that would be tried, each once, in the order in which they would be."""
    address = inputs.address
    address_forms = UNKNOWN if address is UNKNOWN else forms(address)
    codes = list(Candidates(rules).of(inputs, forms(inputs.client), address_forms))
    assert codes == sorted(codes)
    return list(dict.fromkeys(code >> 1 for code in codes))


def test_only_rules_about_the_destination_are_tried_in_their_order() -> None:
    rules = [
        Rule("any", Action.ALLOW),
        Rule("name", Action.ALLOW, to_names=("example.org",)),
        Rule("other name", Action.ALLOW, to_names=("example.com",)),
        Rule("network", Action.ALLOW, to_networks=(ip_network("198.51.100.0/24"),)),
        Rule("other network", Action.ALLOW, to_networks=(ip_network("203.0.113.0/24"),)),
        Rule("port", Action.ALLOW, ports=(PortRange("tcp", 400, 500),)),
        Rule("other port", Action.ALLOW, ports=(PortRange("tcp", 80, 80), PortRange("udp", 443, 443))),
        Rule("client", Action.ALLOW, sources=(ip_network("192.0.2.1/32"),)),
        Rule("other client", Action.ALLOW, sources=(ip_network("192.0.2.2/32"),)),
        Rule("many clients", Action.ALLOW, sources=(ip_network("10.0.0.0/8"),)),
    ]
    assert numbers(rules, ANYONE._replace(host="example.org")) == [0, 1, 3, 5, 7, 9]
    assert numbers(rules, ANYONE) == [0, 3, 5, 7, 9]


def test_each_transport_has_ports_of_its_own() -> None:
    transports: tuple[Transport, ...] = ("tcp", "udp", "tcp-in", "udp-in")
    rules = [Rule(name, Action.ALLOW, ports=(PortRange(name, 443, 443),)) for name in transports]
    tried = [numbers(rules, ANYONE._replace(transport=name)) for name in transports]
    assert tried == [[0], [1], [2], [3]]
    assert numbers(rules[3:], ANYONE._replace(transport="udp-in")) == [0]


def test_before_the_name_is_resolved_network_rules_are_tried_by_port_and_plain_deny_rules_are_not() -> None:
    networks = (ip_network("198.51.100.0/24"),)
    rules = [
        Rule("deny", Action.DENY, to_networks=networks),
        Rule("deny kim", Action.DENY, to_networks=networks, users=frozenset({"kim"})),
        Rule("allow", Action.ALLOW, to_networks=networks),
        Rule("allow other port", Action.ALLOW, to_networks=networks, ports=(PortRange("tcp", 80, 80),)),
        Rule("name too", Action.ALLOW, to_networks=networks, to_names=("example.org",)),
    ]
    unresolved = ANYONE._replace(host="example.org", address=UNKNOWN)
    assert numbers(rules, unresolved) == [1, 2, 4]
    codes = Candidates(rules).of(unresolved, forms(unresolved.client), UNKNOWN)
    assert list(codes) == [2 + UNSURE, 4 + UNSURE, 8, 8 + UNSURE]  # the name decides before the network may


def test_what_an_address_disguises_meets_deny_rules_only() -> None:
    rules = [
        Rule("deny", Action.DENY, to_networks=(ip_network("10.0.0.0/8"),)),
        Rule("allow", Action.ALLOW, to_networks=(ip_network("10.0.0.0/8"),)),
        Rule("deny client", Action.DENY, sources=(ip_network("10.0.0.1/32"),)),
        Rule("allow client", Action.ALLOW, sources=(ip_network("10.0.0.1/32"),)),
    ]
    disguised = ip_address("2001:db8::5efe:10.0.0.1")
    assert numbers(rules, ANYONE._replace(address=disguised, client=disguised)) == [0, 2]


def test_many_candidates_still_come_in_order() -> None:
    rules = [
        Rule(str(i), Action.ALLOW, to_names=("example.org",) if i % 2 else ("*.org",)) for i in range(200)
    ]
    assert numbers(rules, ANYONE._replace(host="example.org")) == list(range(200))


def test_only_networks_narrow_enough_name_an_address_outright() -> None:
    rules = [
        Rule("wide", Action.ALLOW, to_networks=(ip_network("0.0.0.0/0"),)),
        Rule("block", Action.ALLOW, to_networks=(ip_network("127.0.0.0/8"),)),
        Rule("one", Action.ALLOW, to_networks=(ip_network("127.0.0.1/32"), ip_network("::1/128"))),
    ]
    assert Candidates(rules).naming_outright(ip_address("127.0.0.1"), 8) == {2, 4}
    assert Candidates(rules).naming_outright(ip_address("127.0.0.2"), 8) == {2}


@given(st.integers(0, 65_535), st.integers(0, 65_535))
def test_a_range_of_ports_is_cut_into_few_blocks_that_hold_just_its_ports(one: int, other: int) -> None:
    first, last = sorted((one, other))
    blocks = list(aligned_blocks(first, last))
    expected = first
    for start, length in blocks:
        size = 1 << (16 - length)
        assert start == expected
        assert start % size == 0
        expected += size
    assert expected == last + 1
    assert len(blocks) <= 30
