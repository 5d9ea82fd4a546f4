"""A name is answered exactly where some port of it could be reached."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Final

import pytest
from hypothesis import given, settings
from tests.policy.reference import INPUTS, RULES

from doorward.policy.evaluation import Policy
from doorward.policy.model import UNKNOWN, Action, Inputs, PortRange, Rule, Transport
from doorward.policy.possibility import EVERY_PORT, Possibilities, overlap, without

ASKED: Final = Inputs("udp", ip_address("192.168.1.5"), "www.example.org", UNKNOWN, 53, None, frozenset(), 0)
WEB: Final = (PortRange("tcp", 443, 443),)
NOT_WEB: Final = (PortRange("tcp", 0, 442), PortRange("tcp", 444, 65_535), PortRange("udp", 0, 65_535))
ORG: Final = ("*.example.org",)


def judge(*rules: Rule, asked: Inputs = ASKED) -> tuple[Action, str, str | None]:
    decision = Possibilities(Policy(rules, "r")).judge(asked)
    return decision.action, decision.reason, decision.rule


def allow(name: str = "yes", **fields: object) -> Rule:
    return Rule(name, Action.ALLOW, 7, **fields)  # type: ignore[arg-type]  # the fields of Rule


def deny(name: str = "no", **fields: object) -> Rule:
    return Rule(name, Action.DENY, 3, **fields)  # type: ignore[arg-type]  # the fields of Rule


def test_a_name_that_some_rule_allows_on_one_port_is_possible() -> None:
    rule = allow(to_names=ORG, ports=WEB)
    assert judge(rule) == (Action.NEEDS, "needs_address", "yes")
    known = ASKED._replace(address=ip_address("198.51.100.1"))
    assert judge(rule, asked=known) == (Action.ALLOW, "rule_allow", "yes")


def test_a_name_that_no_rule_could_allow_is_not() -> None:
    assert judge() == (Action.DENY, "default_deny", None)
    assert judge(allow(to_names=("example.com",))) == (Action.DENY, "default_deny", None)
    assert judge(allow(ports=(PortRange("tcp-in", 1, 65_535),))) == (Action.DENY, "default_deny", None)
    assert judge(allow(ports=(PortRange("tcp", 0, 0),))) == (Action.DENY, "default_deny", None)


def test_a_rule_that_denies_takes_its_ports_from_those_after_it() -> None:
    assert judge(deny(to_names=ORG), allow()) == (Action.DENY, "rule_deny", "no")
    assert judge(deny(to_names=ORG, ports=WEB), allow()) == (Action.NEEDS, "needs_address", "yes")
    assert judge(deny(to_names=ORG, ports=WEB), allow(ports=WEB))[:2] == (Action.DENY, "default_deny")
    assert judge(allow(ports=WEB), deny(to_names=ORG)) == (Action.NEEDS, "needs_address", "yes")


def test_the_rule_that_took_the_last_port_is_named() -> None:
    first, second = deny("mail", ports=WEB), deny("the rest", ports=NOT_WEB)
    assert judge(first, second, allow()) == (Action.DENY, "rule_deny", "the rest")
    assert judge(first) == (Action.DENY, "default_deny", None)


def test_a_rule_for_users_is_named_to_a_client_that_could_be_one_of_them() -> None:
    kims = allow("kims", to_names=ORG, ports=WEB, users=frozenset({"kim"}))
    assert judge(kims) == (Action.DENY, "user_needed", "kims")
    assert judge(kims, asked=ASKED._replace(user=UNKNOWN)) == (Action.NEEDS, "needs_user", "kims")
    assert judge(kims, asked=ASKED._replace(user="lee")) == (Action.DENY, "default_deny", None)
    assert judge(kims, asked=ASKED._replace(user="kim")) == (Action.NEEDS, "needs_address", "kims")
    assert judge(kims, allow()) == (Action.NEEDS, "needs_address", "yes"), "other ports are left"


def test_a_name_is_possible_if_its_address_could_be_allowed() -> None:
    lan = allow(to_networks=(ip_network("10.0.0.0/8"),))
    assert judge(lan) == (Action.NEEDS, "needs_address", "yes")
    away = ASKED._replace(address=ip_address("198.51.100.1"))
    assert judge(lan, asked=away) == (Action.DENY, "default_deny", None)
    closed = deny(to_networks=(ip_network("198.51.100.0/24"),))
    assert judge(closed, allow()) == (Action.NEEDS, "needs_address", "yes"), "not before it is known"
    assert judge(closed, allow(), asked=away) == (Action.DENY, "rule_deny", "no")


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "169.254.169.254", "64:ff9b::7f00:1", "fe80::1"])
def test_a_guarded_address_is_possible_only_where_it_is_named(address: str) -> None:
    asked = ASKED._replace(address=ip_address(address))
    decision = Possibilities(Policy([allow(to_names=ORG)], "r")).judge(asked)
    assert not decision.allowed
    assert decision.reason.startswith("guarded_")
    assert decision.rule is not None
    assert decision.rule.startswith("built-in")
    outright = allow(to_networks=(ip_network(address),), ports=WEB)
    assert judge(outright, asked=asked) == (Action.ALLOW, "rule_allow", "yes")


def test_ranges_are_cut_and_met() -> None:
    assert without(EVERY_PORT, [PortRange("tcp", 1, 65_535)]) == [PortRange("udp", 1, 65_535)]
    assert without([PortRange("tcp", 1, 10)], [PortRange("tcp", 4, 5)]) == [
        PortRange("tcp", 1, 3),
        PortRange("tcp", 6, 10),
    ]
    assert without([PortRange("tcp", 1, 10)], [PortRange("tcp", 1, 10)]) == []
    assert overlap(EVERY_PORT, None) is EVERY_PORT
    assert overlap([PortRange("tcp", 1, 10)], [PortRange("tcp", 8, 20), PortRange("udp", 1, 3)]) == [
        PortRange("tcp", 8, 10)
    ]


# Each port at which some range of the reference's rules begins or ends, and one on either side.
PROBED: Final = (1, 2, 52, 53, 54, 442, 443, 444, 999, 1000, 1001, 8080, 8081, 65_535)
OUTWARD: Final[tuple[Transport, ...]] = ("tcp", "udp")


@settings(max_examples=500, deadline=None)
@given(RULES, INPUTS)
def test_it_is_possible_exactly_if_the_judge_would_not_refuse_some_port(
    rules: tuple[Rule, ...], inputs: Inputs
) -> None:
    policy = Policy(rules, "r")
    asked = {
        policy.judge(inputs._replace(transport=transport, port=port)).action
        for transport in OUTWARD
        for port in PROBED
    }
    decision = Possibilities(policy).judge(inputs)
    assert (decision.action is Action.DENY) == (asked == {Action.DENY})
    assert decision.action in asked
