from __future__ import annotations

from ipaddress import ip_address, ip_network

from hypothesis import given
from tests.policy.reference import INPUTS, RULES

from doorward.policy.evaluation import Policy
from doorward.policy.explanation import explain
from doorward.policy.model import UNKNOWN, Action, Inputs, PortRange, Rule, Tried, Window

ASKED = Inputs(
    "tcp",
    ip_address("192.168.1.5"),
    "example.org",
    ip_address("198.51.100.1"),
    443,
    "kim",
    frozenset({"staff"}),
    600,
)


def test_every_rule_up_to_the_deciding_one_says_which_field_it_failed_on() -> None:
    rules = [
        Rule("port", Action.ALLOW, 1, ports=(PortRange("tcp", 80, 80), PortRange("udp", 1, 9))),
        Rule("from", Action.ALLOW, 2, sources=(ip_network("10.0.0.0/8"),)),
        Rule("when", Action.ALLOW, 3, windows=(Window(420, 480),)),
        Rule("to", Action.ALLOW, 4, to_names=("*.example.org",), to_networks=(ip_network("10.0.0.0/8"),)),
        Rule("process", Action.ALLOW, 4, process=frozenset({"git", "/bin/curl"})),
        Rule("users", Action.ALLOW, 5, users=frozenset({"lee"}), groups=frozenset({"board"})),
        Rule("yes", Action.ALLOW, 6),
        Rule("never tried", Action.DENY, 7),
    ]
    assert explain(rules, ASKED) == (
        Tried("port", 1, "no match", "protocol", "tcp/80, udp/1-9", "tcp/443"),
        Tried("from", 2, "no match", "from", "10.0.0.0/8", "192.168.1.5"),
        Tried("when", 3, "no match", "when", "mon 07:00 to mon 08:00", "mon 10:00"),
        Tried("to", 4, "no match", "to", "*.example.org, 10.0.0.0/8", "example.org (198.51.100.1)"),
        Tried("process", 4, "no match", "process", "/bin/curl, git", "a client that was not launched"),
        Tried("users", 5, "no match", "users", "lee, group:board", "kim, group:staff"),
        Tried("yes", 6, "match", None, "", ""),
    )


def test_a_launched_program_is_shown_by_everything_that_it_goes_by() -> None:
    asked = ASKED._replace(process=frozenset({"vi", "/bin/vi"}))
    rules = [
        Rule("a", Action.ALLOW, 1, process=frozenset({"git"})),
        Rule("b", Action.DENY, 2, process=frozenset({"vi"})),
    ]
    assert explain(rules, asked) == (
        Tried("a", 1, "no match", "process", "git", "/bin/vi, vi"),
        Tried("b", 2, "match", None, "", ""),
    )


def test_the_fields_are_tested_in_a_fixed_order() -> None:
    nowhere = Rule("r", Action.ALLOW, 1, (), (), (), (), frozenset(), None, ())
    assert [tried.field for tried in explain([nowhere], ASKED)] == ["protocol"]


def test_a_guarded_address_shows_the_rule_that_would_have_allowed_it_and_the_guard() -> None:
    rules = [Rule("anywhere", Action.ALLOW, 1)]
    guarded = explain(rules, ASKED._replace(address=ip_address("127.0.0.1")))
    assert guarded == (
        Tried(
            "anywhere",
            1,
            "no match",
            "to",
            "127.0.0.0/8 or a part of it, named outright (built-in: loopback)",
            "example.org (127.0.0.1)",
        ),
        Tried(
            "built-in: loopback",
            0,
            "match",
            "to",
            "a rule that names 127.0.0.0/8 or a part of it",
            "example.org (127.0.0.1)",
        ),
    )


def test_an_unknown_field_is_shown_as_needed() -> None:
    rules = [
        Rule("inside", Action.DENY, 1, to_networks=(ip_network("10.0.0.0/8"),)),
        Rule("anywhere", Action.ALLOW, 2),
        Rule("never tried", Action.DENY, 3),
    ]
    unresolved = ASKED._replace(address=UNKNOWN)
    assert [(tried.rule, tried.outcome, tried.field) for tried in explain(rules, unresolved)] == [
        ("inside", "needs", "to"),
        ("anywhere", "needs", "to"),
    ]
    people = [Rule("people", Action.ALLOW, 1, users=frozenset({"kim"}))]
    assert explain(people, ASKED._replace(user=UNKNOWN))[0].got == "not asked yet"
    assert explain(people, ASKED._replace(user=None))[0].got == "a client that does not say who it is"


def test_a_long_list_is_shown_in_part_with_its_number() -> None:
    ports = tuple(PortRange("tcp", port, port) for port in range(1, 101))
    tried = explain([Rule("r", Action.ALLOW, 1, ports=ports)], ASKED)[0]
    assert tried.wanted == "tcp/1, tcp/2, tcp/3, tcp/4, tcp/5, tcp/6 and 94 more"


def test_a_listening_port_needs_a_rule_that_names_it() -> None:
    listening = ASKED._replace(transport="tcp-in", port=5000, host=None, address=UNKNOWN)
    rules = [
        Rule("anything", Action.ALLOW, 1),
        Rule("ports", Action.ALLOW, 2, ports=(PortRange("tcp-in", 1, 9), PortRange("tcp", 0, 65_535))),
        Rule("peers", Action.ALLOW, 3, (), (ip_network("192.0.2.0/24"),)),
        Rule(
            "peers",
            Action.ALLOW,
            3,
            None,
            (ip_network("192.0.2.0/24"),),
            ports=(PortRange("tcp-in", 0, 65_535),),
        ),
    ]
    assert explain(rules, listening) == (
        Tried(
            "anything", 1, "no match", "protocol", '"tcp-in" by name; "any" does not open it', "tcp-in/5000"
        ),
        Tried("ports", 2, "no match", "protocol", "tcp-in/1-9, tcp", "tcp-in/5000"),
        Tried("peers", 3, "no match", "protocol", '"tcp-in" by name; "any" does not open it', "tcp-in/5000"),
        Tried("peers", 3, "needs", "to", "192.0.2.0/24", "a peer not known yet"),
    )
    assert explain([Rule("nothing", Action.DENY, 1)], listening)[0].outcome == "match"


@given(RULES, INPUTS)
def test_the_explanation_ends_with_the_rule_that_the_judge_names(
    rules: tuple[Rule, ...], inputs: Inputs
) -> None:
    policy = Policy(rules, "r")
    decision, tried = policy.judge(inputs), policy.explain(inputs)
    if decision.rule is None:
        assert len(tried) == len(rules)
        assert all(one.outcome != "match" for one in tried)
    else:
        last = tried[-1]
        assert (last.rule, last.line) == (decision.rule, decision.rule_line)
        assert (last.outcome == "match") is (
            decision.reason not in ("user_needed", "needs_user", "needs_address")
        )
    assert all(one.outcome != "match" for one in tried[:-1])
