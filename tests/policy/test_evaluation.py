from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Final

import pytest
from hypothesis import given, settings
from tests.policy.reference import ADDRESSES, INPUTS, RULES, reference_judge

from doorward.policy.evaluation import Policy
from doorward.policy.guard import METADATA_ADDRESSES
from doorward.policy.model import (
    UNKNOWN,
    Action,
    Decision,
    Inputs,
    IPNetwork,
    PortRange,
    Rule,
    Transport,
    Window,
    names_of_process,
)

ASKED: Final = Inputs(
    "tcp", ip_address("192.168.1.5"), None, ip_address("198.51.100.1"), 443, None, frozenset(), 600
)
NAMED: Final = ASKED._replace(host="example.org", address=UNKNOWN)


def networks(*texts: str) -> tuple[IPNetwork, ...]:
    return tuple(map(ip_network, texts))


def allow(name: str = "allow", **fields: object) -> Rule:
    return Rule(name, Action.ALLOW, 7, **fields)  # type: ignore[arg-type] # the fields of Rule, by name


def deny(name: str = "deny", **fields: object) -> Rule:
    return Rule(name, Action.DENY, 8, **fields)  # type: ignore[arg-type] # the fields of Rule, by name


def judge(inputs: Inputs, *rules: Rule) -> Decision:
    return Policy(rules, "r1").judge(inputs)


def answer(inputs: Inputs, *rules: Rule) -> tuple[str, str, str | None]:
    decision = judge(inputs, *rules)
    return decision.action.value, decision.reason, decision.rule


DEFAULT: Final = ("deny", "default_deny", None)


def test_without_rules_everything_is_refused() -> None:
    assert judge(ASKED) == Decision(Action.DENY, "default_deny", ASKED, "r1")


def test_the_first_full_match_decides_and_is_named() -> None:
    rules = (allow("a", ports=(PortRange("tcp", 80, 80),)), deny("b"), allow("c"))
    assert judge(ASKED, *rules) == Decision(Action.DENY, "rule_deny", ASKED, "r1", "b", 8)
    assert judge(ASKED._replace(port=80), *rules).rule == "a"
    assert judge(ASKED, allow("x"), deny("y")) == Decision(Action.ALLOW, "rule_allow", ASKED, "r1", "x", 7)


@pytest.mark.parametrize(
    "rule",
    [
        allow(ports=(PortRange("udp", 443, 443), PortRange("tcp", 444, 500))),
        allow(ports=()),
        allow(sources=networks("192.168.2.0/24")),
        allow(sources=()),
        allow(windows=(Window(0, 600),)),
        allow(windows=()),
        allow(process=frozenset({"git"})),
        allow(process=frozenset()),
        allow(to_networks=networks("198.51.100.2/32")),
        allow(to_networks=()),
        allow(to_names=("example.org",)),
        allow(to_names=()),
    ],
)
def test_a_rule_that_fails_on_one_field_does_not_match(rule: Rule) -> None:
    assert answer(ASKED, rule) == DEFAULT


@pytest.mark.parametrize(
    "rule",
    [
        allow(ports=(PortRange("udp", 443, 443), PortRange("tcp", 400, 443))),
        allow(sources=networks("10.0.0.0/8", "192.168.1.0/24")),
        allow(sources=networks("192.168.0.0/16")),
        allow(windows=(Window(0, 1), Window(600, 601))),
        allow(to_networks=networks("198.51.100.0/24")),
        allow(to_names=("example.org",), to_networks=networks("0.0.0.0/0")),
    ],
)
def test_a_rule_whose_fields_all_match_decides(rule: Rule) -> None:
    assert answer(ASKED, rule) == ("allow", "rule_allow", "allow")


def test_a_program_is_known_by_its_paths_and_by_the_names_of_its_files() -> None:
    launched = ASKED._replace(process=names_of_process(("/bin/vi", "/usr/bin/vim.basic")))
    for name in ("vi", "/bin/vi", "vim.basic", "/usr/bin/vim.basic"):
        assert judge(launched, allow("editors", process=frozenset({"git", name}))).rule == "editors"
    for name in ("git", "vim", "/usr/bin/vi", "bin/vi", "/bin", ""):
        assert answer(launched, allow("editors", process=frozenset({name}))) == DEFAULT


def test_a_program_that_is_not_known_is_none_of_those_that_are_refused() -> None:
    rules = (deny("not git", process=frozenset({"git"})), allow("everybody"))
    assert judge(ASKED, *rules).rule == "everybody"
    assert judge(ASKED._replace(process=frozenset({"git"})), *rules).rule == "not git"


def test_a_known_user_matches_by_name_or_group_and_an_unlisted_one_goes_on_to_the_next_rule() -> None:
    rules = (
        allow("people", users=frozenset({"kim"}), groups=frozenset({"staff"})),
        allow("guests", ports=(PortRange("tcp", 443, 443),)),
    )
    assert judge(ASKED._replace(user="kim"), *rules).rule == "people"
    assert judge(ASKED._replace(user="lee", groups=frozenset({"staff"})), *rules).rule == "people"
    assert judge(ASKED._replace(user="lee", groups=frozenset({"kim"})), *rules).rule == "guests"


def test_a_client_that_cannot_say_who_it_is_is_refused_at_the_first_rule_about_users() -> None:
    rules = (allow("people", users=frozenset({"kim"})), allow("everybody"))
    assert answer(ASKED, *rules) == ("deny", "user_needed", "people")
    assert answer(ASKED, deny("people", groups=frozenset({"bad"})), rules[1]) == (
        "deny",
        "user_needed",
        "people",
    )
    assert answer(ASKED, allow("p", users=frozenset({"kim"}), ports=()), rules[1])[2] == "everybody"


def test_a_user_nobody_asked_for_yet_is_asked_for_only_when_a_rule_hangs_on_it() -> None:
    unasked = ASKED._replace(user=UNKNOWN)
    decision = judge(unasked, allow("people", users=frozenset({"kim"})), allow("everybody"))
    assert (decision.action, decision.needs, decision.rule) == (Action.NEEDS, "user", "people")
    assert decision.reason == "needs_user"
    assert judge(unasked, allow("everybody"), allow("people", users=frozenset())).rule == "everybody"


def test_names_users_says_whether_anybody_ever_needs_to_be_asked() -> None:
    assert not Policy([allow(), deny()], "").names_users
    assert Policy([allow(), deny(groups=frozenset({"staff"}))], "").names_users


def test_an_allowed_name_is_resolved_so_that_the_guard_sees_the_address() -> None:
    rule = allow("code", to_names=("example.org",))
    decision = judge(NAMED, rule)
    assert (decision.action, decision.needs, decision.rule) == (Action.NEEDS, "address", "code")
    assert decision.reason == "needs_address"
    assert judge(NAMED._replace(address=ip_address("198.51.100.1")), rule).allowed
    assert answer(NAMED._replace(address=ip_address("127.0.0.1")), rule)[:2] == ("deny", "guarded_loopback")


@pytest.mark.parametrize(
    "rules",
    [
        (),
        (deny("x"),),
        (deny("x", to_names=(".org",)), allow("later")),
        (allow("other name", to_names=("example.com",)),),
        (allow("other port", to_networks=networks("0.0.0.0/0"), ports=(PortRange("tcp", 80, 80),)),),
        (deny("inside", to_networks=networks("10.0.0.0/8")),),
        (deny("inside", to_networks=networks("10.0.0.0/8")), allow("code", to_names=("example.com",))),
        (deny("inside", to_networks=networks("10.0.0.0/8")), deny("rest"), allow("never")),
        (allow("people", to_networks=networks("10.0.0.0/8"), users=frozenset({"kim"})),),
        (allow("people", users=frozenset({"kim"})), allow("never")),
    ],
)
def test_a_name_that_is_refused_whatever_its_address_is_never_looked_up(rules: tuple[Rule, ...]) -> None:
    assert judge(NAMED, *rules).action is Action.DENY


def test_a_name_that_an_earlier_deny_rule_may_hit_is_resolved_if_a_later_rule_would_allow_it() -> None:
    rules = (deny("inside", to_networks=networks("10.0.0.0/8")), allow("code", to_names=("example.org",)))
    assert judge(NAMED, *rules).needs == "address"
    assert answer(NAMED._replace(address=ip_address("10.1.1.1")), *rules) == ("deny", "rule_deny", "inside")
    assert judge(NAMED._replace(address=ip_address("198.51.100.1")), *rules).rule == "code"


def test_the_user_is_asked_before_a_name_is_looked_up() -> None:
    unasked = NAMED._replace(user=UNKNOWN)
    for rule in (
        allow("a", to_networks=networks("0.0.0.0/0"), users=frozenset({"kim"})),
        allow("a", users=frozenset({"kim"})),
        deny("a", to_networks=networks("0.0.0.0/0"), users=frozenset({"kim"})),
    ):
        assert judge(unasked, rule, allow()).needs == "user"


GUARDED: Final = [
    ("127.0.0.1", "guarded_loopback", "built-in: loopback", "127.0.0.0/8"),
    ("::1", "guarded_loopback", "built-in: loopback", "::1/128"),
    ("169.254.7.7", "guarded_link_local", "built-in: link-local", "169.254.0.0/16"),
    ("169.254.169.254", "guarded_metadata", "built-in: cloud metadata", "169.254.169.254/32"),
    ("0.0.0.0", "guarded_not_unicast", "built-in: this host", "0.0.0.0/8"),
    ("224.0.0.251", "guarded_not_unicast", "built-in: multicast", "224.0.0.0/4"),
    ("255.255.255.255", "guarded_not_unicast", "built-in: broadcast", "255.255.255.255/32"),
]


@pytest.mark.parametrize(("text", "reason", "label", "block"), GUARDED)
def test_a_guarded_address_is_opened_by_its_block_and_by_nothing_wider(
    text: str, reason: str, label: str, block: str
) -> None:
    inputs = ASKED._replace(address=ip_address(text))
    wider = ip_network(block).supernet()
    for rules in (
        (),
        (allow(),),
        (allow(to_networks=networks("0.0.0.0/0", "::/0")),),
        (allow(to_networks=(wider,)),),
        (allow(users=frozenset({"kim"})),),
        (allow(to_names=("example.org",)),),
    ):
        assert answer(inputs._replace(host="example.org"), *rules) == ("deny", reason, label)
    assert judge(inputs, allow(to_networks=networks(block))).allowed
    assert judge(inputs, allow(to_networks=networks(text))).allowed
    assert judge(inputs, allow("wide"), allow("outright", to_networks=networks(block))).rule == "outright"


@pytest.mark.parametrize("address", METADATA_ADDRESSES, ids=str)
def test_metadata_is_opened_by_its_own_address_only(address: object) -> None:
    inputs = ASKED._replace(address=ip_address(str(address)))
    wide = networks("0.0.0.0/0", "169.254.0.0/16", "169.254.169.0/24", "fd00::/8", "fe80::/10", "::/0")
    assert judge(inputs, allow(to_networks=wide)).reason == "guarded_metadata"
    assert judge(inputs, allow(to_networks=networks(str(address)))).allowed


def test_the_firewalls_own_address_is_opened_by_that_address_only() -> None:
    own = ASKED._replace(address=ip_address("10.0.0.1"), own=True)
    assert answer(own, allow(to_networks=networks("10.0.0.0/8"))) == (
        "deny",
        "guarded_own_address",
        "built-in: own address",
    )
    assert judge(own, allow(to_networks=networks("10.0.0.1/32"))).allowed


def test_a_deny_rule_refuses_a_guarded_address_in_its_own_name() -> None:
    assert answer(ASKED._replace(address=ip_address("127.0.0.1")), deny("no"), allow()) == (
        "deny",
        "rule_deny",
        "no",
    )


def test_localhost_written_in_a_rule_opens_loopback_for_that_name_only() -> None:
    rule = allow("here", to_names=("localhost",))
    here = ASKED._replace(host="localhost", address=ip_address("127.0.0.1"))
    assert judge(here, rule).rule == "here"
    assert judge(here._replace(address=ip_address("::1")), rule).allowed
    assert judge(here._replace(host=None), rule).reason == "guarded_loopback"
    assert judge(here._replace(host="example.org"), rule).reason == "guarded_loopback"
    assert judge(here._replace(address=ip_address("169.254.169.254")), rule).reason == "guarded_metadata"
    assert judge(here, allow(to_names=(".localhost",))).reason == "guarded_loopback"


def test_a_stranger_cannot_borrow_an_opened_ipv4_address_by_disguise() -> None:
    """Anybody may give a server the address 2001:db8::5efe:10.0.0.1; it is not in 10.0.0.0/8 for that."""
    disguised = ASKED._replace(address=ip_address("2001:db8::5efe:10.0.0.1"))
    assert answer(disguised, allow(to_networks=networks("10.0.0.0/8"))) == DEFAULT
    assert answer(disguised, deny("inside", to_networks=networks("10.0.0.0/8")), allow())[2] == "inside"
    from_outside = ASKED._replace(client=ip_address("2001:db8::5efe:10.0.0.1"))
    assert answer(from_outside, allow(sources=networks("10.0.0.0/8"))) == DEFAULT
    assert answer(from_outside, deny("inside", sources=networks("10.0.0.0/8")), allow())[2] == "inside"


def test_a_mapped_address_is_its_ipv4_on_either_side() -> None:
    mapped = ASKED._replace(
        client=ip_address("::ffff:192.168.1.5"), address=ip_address("::ffff:198.51.100.1")
    )
    rule = allow(sources=networks("192.168.1.5/32"), to_networks=networks("198.51.100.1/32"))
    assert judge(mapped, rule).allowed


def test_loopback_in_disguise_is_opened_by_that_very_address_only() -> None:
    inputs = ASKED._replace(address=ip_address("64:ff9b::127.0.0.1"))
    assert (
        judge(inputs, allow(to_networks=networks("64:ff9b::/96", "127.0.0.0/8"))).reason == "guarded_loopback"
    )
    assert judge(inputs, allow(to_networks=networks("64:ff9b::7f00:1/128"))).allowed


LISTENING: Final = ASKED._replace(transport="tcp-in", port=5000, address=UNKNOWN)
ARRIVING: Final = LISTENING._replace(address=ip_address("198.51.100.1"))
IN: Final = (PortRange("tcp-in", 5000, 5100),)


@pytest.mark.parametrize("transport", ["tcp-in", "udp-in"])
def test_any_opens_no_listening_port_and_closes_every_one(transport: Transport) -> None:
    for inputs in (LISTENING._replace(transport=transport), ARRIVING._replace(transport=transport)):
        assert answer(inputs, allow()) == DEFAULT
        assert answer(inputs, allow(to_networks=networks("0.0.0.0/0"))) == DEFAULT
        assert answer(inputs, deny(), allow(ports=(PortRange(transport, 0, 65_535),)))[2] == "deny"
    assert judge(ARRIVING._replace(transport="udp"), allow()).allowed


def test_ports_of_one_transport_are_not_those_of_another() -> None:
    transports: tuple[Transport, ...] = ("tcp", "udp", "tcp-in", "udp-in")
    for wanted in transports:
        for asked in transports:
            rule = allow(ports=(PortRange(wanted, 0, 65_535),))
            assert judge(ARRIVING._replace(transport=asked), rule).allowed is (wanted == asked)


def test_a_bind_is_refused_at_once_or_hangs_on_the_peer_and_each_peer_is_judged() -> None:
    to = networks("198.51.100.0/24")
    rule = allow(ports=IN, to_networks=to)
    assert judge(LISTENING, rule).needs == "address"
    assert judge(LISTENING, allow(ports=IN)).needs == "address"
    assert answer(LISTENING._replace(port=5101), rule) == DEFAULT
    assert answer(LISTENING, deny(ports=IN), rule)[2] == "deny"
    assert judge(LISTENING, deny(ports=IN, to_networks=to), allow(ports=IN)).needs == "address"
    assert judge(LISTENING._replace(user=UNKNOWN), allow(ports=IN, users=frozenset({"kim"}))).needs == "user"
    assert judge(ARRIVING, rule).allowed
    assert answer(ARRIVING._replace(address=ip_address("203.0.113.1")), rule) == DEFAULT
    assert answer(ARRIVING, deny(ports=IN, to_networks=to), allow(ports=IN))[2] == "deny"


def test_a_guarded_peer_arrives_only_where_a_rule_names_it_outright() -> None:
    inputs = ARRIVING._replace(address=ip_address("127.0.0.1"))
    assert answer(inputs, allow(ports=IN))[1] == "guarded_loopback"
    assert judge(inputs, allow(ports=IN, to_networks=networks("127.0.0.0/8"))).allowed


# What follows holds the indexed judge against one that knows no index, on policies small enough to collide.


@settings(max_examples=600)
@given(RULES, INPUTS)
def test_the_judge_agrees_with_one_that_tries_every_rule(rules: tuple[Rule, ...], inputs: Inputs) -> None:
    assert Policy(rules, "r").judge(inputs) == reference_judge(rules, inputs)


@given(RULES, INPUTS)
def test_an_answer_without_the_user_is_the_answer_for_every_user(
    rules: tuple[Rule, ...], inputs: Inputs
) -> None:
    policy = Policy(rules, "r")
    before = policy.judge(inputs._replace(user=UNKNOWN))
    if before.action is not Action.NEEDS:
        for user in (None, "kim", "lee", "max"):
            after = policy.judge(inputs._replace(user=user))
            assert (after.action, after.reason, after.rule) == (before.action, before.reason, before.rule)


@given(RULES, INPUTS)
def test_a_refusal_without_the_address_stands_for_every_address(
    rules: tuple[Rule, ...], inputs: Inputs
) -> None:
    policy = Policy(rules, "r")
    before = policy.judge(inputs._replace(address=UNKNOWN))
    assert before.action is not Action.ALLOW
    if before.action is Action.DENY and before.reason != "user_needed":
        assert not any(policy.judge(inputs._replace(address=address)).allowed for address in ADDRESSES)


@given(RULES, INPUTS)
def test_a_judgement_comes_to_an_end_when_what_it_needs_is_given(
    rules: tuple[Rule, ...], inputs: Inputs
) -> None:
    policy = Policy(rules, "r")
    known = inputs._replace(
        user=None if inputs.user is UNKNOWN else inputs.user,
        address=ADDRESSES[0] if inputs.address is UNKNOWN else inputs.address,
    )
    assert policy.judge(known).action is not Action.NEEDS
    decision = policy.judge(inputs)
    assert (decision.action is Action.NEEDS) is (decision.needs is not None)
    assert decision.needs is None or getattr(inputs, decision.needs) is UNKNOWN
