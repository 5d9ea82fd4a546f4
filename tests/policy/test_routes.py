"""Routes: a route's words mean what they mean in a rule that allows, and without a match the way is direct."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Final

from hypothesis import assume, given, settings
from tests.policy.reference import INPUTS, RULES, reference_judge

from doorward.policy.guard import guard
from doorward.policy.model import TRANSPORTS, UNKNOWN, Action, Inputs, PortRange, Rule, Transport
from doorward.policy.routes import NO_ROUTE, Chosen, Route, Routes

ASKED: Final = Inputs(
    "tcp", ip_address("192.168.1.5"), "www.example.org", ip_address("198.51.100.1"), 443, None, frozenset(), 0
)


def route(name: str, *via: str, **fields: object) -> Route:
    return Route(Rule(name, Action.ALLOW, 1, **fields), via)  # type: ignore[arg-type] # the fields of Rule


def test_without_a_match_the_way_is_direct() -> None:
    assert Routes().choose(ASKED) == NO_ROUTE == Chosen(("direct",), None)
    assert not Routes()
    assert Routes([route("other", "corp", to_names=("example.com",))]).choose(ASKED) == NO_ROUTE


def test_the_first_match_decides_and_names_its_ways_in_order() -> None:
    routes = Routes(
        [
            route("network", "lab", to_networks=(ip_network("10.0.0.0/8"),)),
            route("names", "corp", "backup", to_names=("*.example.org",)),
            route("rest", "edge", "direct"),
        ]
    )
    assert routes.choose(ASKED) == Chosen(("corp", "backup"), "names")
    assert routes.choose(ASKED._replace(host=None)) == Chosen(("edge", "direct"), "rest")
    assert routes.choose(ASKED._replace(address=ip_address("10.1.1.1"))) == Chosen(("lab",), "network")


def test_every_word_restricts() -> None:
    every = route(
        "every",
        "corp",
        to_names=("www.example.org",),
        ports=(PortRange("tcp", 443, 443),),
        sources=(ip_network("192.168.0.0/16"),),
        users=frozenset({"kim"}),
    )
    asked = ASKED._replace(user="kim")
    routes = Routes([every])
    assert routes.choose(asked).route == "every"
    for other in (
        asked._replace(host="example.org"),
        asked._replace(port=80),
        asked._replace(transport="udp"),
        asked._replace(client=ip_address("10.0.0.1")),
        asked._replace(user="lee"),
    ):
        assert routes.choose(other) == NO_ROUTE


def test_who_has_not_said_who_he_is_does_not_match_a_route_for_users() -> None:
    routes = Routes([route("theirs", "corp", groups=frozenset({"staff"})), route("rest", "edge")])
    staff = frozenset({"staff"})
    assert routes.choose(ASKED._replace(user="kim", groups=staff)).route == "theirs"
    assert routes.choose(ASKED._replace(user=UNKNOWN, groups=staff)).route == "rest"
    assert routes.choose(ASKED._replace(user=None, groups=staff)).route == "rest"


def test_an_address_that_is_not_known_yet_matches_no_network() -> None:
    routes = Routes([route("network", "corp", to_networks=(ip_network("0.0.0.0/0"),))])
    assert routes.choose(ASKED._replace(address=UNKNOWN)) == NO_ROUTE
    assert routes.choose(ASKED).route == "network"


def test_a_peer_that_is_waited_for_takes_the_first_route_for_it_or_for_its_port_outward() -> None:
    everything = route("everything", "corp")
    every = {transport: PortRange(transport, 1, 65_535) for transport in TRANSPORTS}
    cases: list[tuple[Transport, Transport, Transport]] = [("tcp-in", "tcp", "udp"), ("udp-in", "udp", "tcp")]
    for inward, outward, other in cases:
        asked = ASKED._replace(transport=inward)
        assert Routes([everything]).choose_inbound(asked).route == "everything"
        for word in (inward, outward):
            near = route("near", "direct", ports=(every[word],))
            assert Routes([near, everything]).choose_inbound(asked).route == "near"
            assert Routes([everything, near]).choose_inbound(asked).route == "everything"
        assert Routes([route("near", "direct", ports=(every[other],))]).choose_inbound(asked) == NO_ROUTE


def test_a_route_for_peers_that_are_waited_for_leads_nothing_outward() -> None:
    near = route("near", "direct", ports=(PortRange("tcp-in", 1, 65_535),))
    assert Routes([near, route("everything", "corp")]).choose(ASKED).route == "everything"


def test_guards_do_not_matter() -> None:
    routes = Routes([route("rest", "corp")])
    assert routes.choose(ASKED._replace(address=ip_address("127.0.0.1"), own=True)).route == "rest"


@given(RULES, INPUTS)
@settings(max_examples=300, deadline=None)
def test_a_route_matches_exactly_where_a_rule_with_its_words_would_allow(
    rules: tuple[Rule, ...], inputs: Inputs
) -> None:
    inputs = inputs._replace(own=False)
    assume(inputs.address is not UNKNOWN)
    assert inputs.address is not UNKNOWN
    assume(guard(inputs.address, own=False) is None)
    allowing = [replace(rule, action=Action.ALLOW) for rule in rules]
    expected = next((rule.name for rule in allowing if reference_judge((rule,), inputs).allowed), None)
    assert Routes([Route(rule, ("corp",)) for rule in allowing]).choose(inputs).route == expected
