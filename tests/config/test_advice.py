from __future__ import annotations

from ipaddress import ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from doorward.config.advice import COMPARISONS_MAX, advise
from doorward.config.document import Document
from doorward.config.lines import Lines
from doorward.config.model import ListenAddress
from doorward.config.ports import EVERY_PORT
from doorward.config.problems import Report
from doorward.policy.address import canonical
from doorward.policy.evaluation import Policy
from doorward.policy.model import Action, Inputs, PortRange, Rule

LOOPBACK = ListenAddress("127.0.0.1", 1080)
EVERYWHERE = ListenAddress("::", 1080)


def advice(rules: list[Rule], *listen: ListenAddress) -> list[str]:
    report = Report("p", Lines(""))
    advise(Document(), listen, rules, set(), report)
    return [f"{problem.path} {problem.message}" for problem in report.problems()]


@pytest.mark.parametrize(
    ("pattern", "other", "covered"),
    [
        ("example.org", "example.org", True),
        (".example.org", "example.org", True),
        (".example.org", "*.example.org", True),
        ("*.example.org", "*.example.org", True),
        ("*.example.org", ".a.example.org", True),
        ("*.example.org", "*.a.example.org", True),
        ("*.example.org", "example.org", False),
        ("*.example.org", ".example.org", False),
        ("example.org", "*.example.org", False),
        ("*.ample.org", "*.example.org", False),
    ],
)
def test_one_pattern_covers_another_only_if_every_name_does(pattern: str, other: str, covered: bool) -> None:
    rules = [Rule("a", Action.DENY, to_names=(pattern,)), Rule("b", Action.DENY, to_names=(other,))]
    assert bool(advice(rules)) == covered


def test_listening_beyond_loopback_for_everyone_is_doubted() -> None:
    rules = [Rule("web", Action.ALLOW)]
    assert advice(rules, LOOPBACK) == []
    assert 'everyone who reaches this address may use rule "web"' in advice(rules, EVERYWHERE)[0]


@pytest.mark.parametrize(
    "rule",
    [
        Rule("denies", Action.DENY),
        Rule("some clients", Action.ALLOW, sources=(ip_network("10.0.0.0/8"),)),
        Rule("some users", Action.ALLOW, users=frozenset({"kim"})),
        Rule("some programs", Action.ALLOW, process=frozenset({"git"})),
        Rule("a group", Action.ALLOW, groups=frozenset({"engineering"})),
    ],
)
def test_a_rule_that_restricts_who_may_ask_is_no_open_door(rule: Rule) -> None:
    assert advice([rule], EVERYWHERE) == []


def test_very_many_rules_are_not_all_compared() -> None:
    count = COMPARISONS_MAX // 100
    assert 0 < len(advice([Rule("same", Action.DENY)] * count)) < count


IN: tuple[PortRange, ...] = (PortRange("tcp-in", 5000, 5100),)


def test_allowing_any_covers_no_rule_about_listening_and_denying_any_covers_all() -> None:
    later = Rule("listen", Action.ALLOW, ports=IN)
    assert advice([Rule("any", Action.ALLOW), later]) == []
    assert advice([Rule("any", Action.ALLOW), Rule("rest", Action.DENY)]) == []
    assert "can never match" in advice([Rule("any", Action.DENY), later])[0]
    assert "can never match" in advice([Rule("wide", Action.ALLOW, ports=EVERY_PORT), later])[0]


@pytest.mark.parametrize("action", [Action.ALLOW, Action.DENY])
def test_a_name_where_only_peers_arrive_is_doubted(action: Action) -> None:
    named = Rule("listen", action, ports=IN, to_names=("example.org",))
    assert "never match one" in advice([named])[0]
    assert advice([Rule("both ways", action, ports=EVERY_PORT, to_names=("example.org",))]) == []
    assert advice([Rule("listen", action, ports=IN)]) == []
    assert advice([Rule("any", action, to_names=("example.org",))]) == []


NETWORKS = st.sampled_from(
    tuple(
        map(
            ip_network,
            ("0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16", "127.0.0.0/8", "127.0.0.1", "169.254.169.254"),
        )
    )
)
PORTS = st.sampled_from(
    (
        *(PortRange("tcp", 1, 1000), PortRange("tcp", 80, 80), PortRange("tcp", 443, 443)),
        *(PortRange("tcp-in", 0, 65_535), PortRange("tcp-in", 80, 80), PortRange("udp", 0, 65_535)),
    )
)
NAMES = st.sampled_from(("localhost", "example.org", "*.example.org", ".example.org"))


def few(values: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    return st.none() | st.lists(values, min_size=1, max_size=2).map(tuple)


RULES = st.builds(
    Rule,
    name=st.just("r"),
    action=st.sampled_from((Action.ALLOW, Action.DENY)),
    sources=few(NETWORKS),
    to_networks=few(NETWORKS),
    to_names=few(NAMES),
    ports=few(PORTS),
    users=st.none() | st.just(frozenset({"kim"})),
)
INPUTS = st.builds(
    Inputs,
    transport=st.sampled_from(("tcp", "udp", "tcp-in", "udp-in")),
    client=NETWORKS.map(lambda network: network[1] if network.num_addresses > 1 else network[0]),
    host=st.sampled_from((None, "localhost", "example.org", "a.example.org")),
    address=NETWORKS.map(lambda network: canonical(network[0])),
    port=st.sampled_from((80, 443, 1000)),
    user=st.sampled_from((None, "kim", "lee")),
    groups=st.just(frozenset()),
    minute_of_week=st.just(0),
)


@settings(max_examples=300, deadline=None)
@given(RULES, RULES, INPUTS)
def test_a_rule_that_is_called_unreachable_never_changes_an_answer(
    first: Rule, second: Rule, inputs: Inputs
) -> None:
    if any("can never match" in doubt for doubt in advice([first, second])):
        with_both = Policy([first, second], "r").judge(inputs)
        alone = Policy([first], "r").judge(inputs)
        assert with_both.action == alone.action


@pytest.mark.parametrize(
    ("earlier", "later", "covered"),
    [
        (None, {"git"}, True),
        ({"git", "curl"}, {"git"}, True),
        ({"git"}, {"git", "curl"}, False),
        ({"git"}, None, False),
        ({"git"}, {"/usr/bin/git"}, False),
    ],
)
def test_a_rule_for_programs_covers_those_for_the_same(
    earlier: set[str] | None, later: set[str] | None, covered: bool
) -> None:
    rules = [
        Rule(name, Action.DENY, process=None if programs is None else frozenset(programs))
        for name, programs in (("a", earlier), ("b", later))
    ]
    assert bool(advice(rules)) == covered
