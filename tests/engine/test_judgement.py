"""From a target to the addresses that may be dialled: each is judged, a refused name is never looked up."""

from __future__ import annotations

from datetime import datetime
from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_address, ip_network

import pytest

from doorward.api import NameNotFound
from doorward.engine.judgement import Judged, is_leading_to, judge, local_minute
from doorward.engine.session import Session
from doorward.engine.target import target_of
from doorward.policy.evaluation import Policy
from doorward.policy.model import UNKNOWN, Action, IPAddress, Rule, Unknown

pytestmark = pytest.mark.anyio

NOW_S = 1_700_000_000.0
ALL = Rule("all", Action.ALLOW)


class Lookup:
    """A resolver that knows one answer."""

    def __init__(self, *addresses: str) -> None:
        self.addresses: tuple[IPAddress, ...] = tuple(ip_address(address) for address in addresses)
        self.asked: list[str] = []

    async def resolve(self, name: str) -> tuple[IPAddress, ...]:
        self.asked.append(name)
        if not self.addresses:
            raise NameNotFound("no address")
        return self.addresses


async def ask(
    host: str,
    *rules: Rule,
    lookup: Lookup | None = None,
    own: frozenset[str] = frozenset(),
    user: str | Unknown | None = None,
) -> Judged:
    session = Session(1, "192.0.2.7", user if isinstance(user, str) else None, frozenset({"staff"}))
    return await judge(
        Policy(rules, "revision"),
        lookup or Lookup(),
        lambda address: str(address) in own,
        session,
        target_of(host, 443),
        user=user,
        now_s=NOW_S,
    )


def to(network: str, action: Action = Action.ALLOW) -> Rule:
    return Rule(f"{action} {network}", action, to_networks=(ip_network(network),))


async def test_an_address_that_was_asked_for_is_judged_and_nothing_is_looked_up() -> None:
    lookup = Lookup("203.0.113.1")
    judged = await ask("198.51.100.1", ALL, lookup=lookup)
    assert list(judged.addresses) == [IPv4Address("198.51.100.1")]
    assert judged.decision.allowed
    assert lookup.asked == []


async def test_a_name_that_is_refused_whatever_its_address_is_never_looked_up() -> None:
    lookup = Lookup("198.51.100.1")
    judged = await ask("bad.test", Rule("no", Action.DENY, to_names=("bad.test",)), ALL, lookup=lookup)
    assert (judged.decision.reason, judged.decision.rule) == ("rule_deny", "no")
    assert not judged.addresses
    assert lookup.asked == []


async def test_a_name_that_no_rule_allows_is_never_looked_up() -> None:
    lookup = Lookup("198.51.100.1")
    judged = await ask("other.test", Rule("some", Action.ALLOW, to_names=("some.test",)), lookup=lookup)
    assert judged.decision.reason == "default_deny"
    assert lookup.asked == []


async def test_a_client_that_could_say_who_it_is_is_asked_before_a_name_is_looked_up() -> None:
    lookup = Lookup("198.51.100.1")
    rule = Rule("kim's", Action.ALLOW, users=frozenset({"kim"}))
    judged = await ask("a.test", rule, lookup=lookup, user=UNKNOWN)
    assert (judged.decision.action, judged.decision.needs) == (Action.NEEDS, "user")
    assert lookup.asked == []


@pytest.mark.parametrize(
    ("user", "reason"),
    [("kim", "rule_allow"), ("lee", "default_deny"), (None, "user_needed"), (UNKNOWN, "needs_user")],
)
async def test_who_asks_decides_where_a_rule_says_so(user: str | Unknown | None, reason: str) -> None:
    judged = await ask("198.51.100.1", Rule("kim's", Action.ALLOW, users=frozenset({"kim"})), user=user)
    assert judged.decision.reason == reason


async def test_groups_are_the_sessions() -> None:
    judged = await ask("198.51.100.1", Rule("staff", Action.ALLOW, groups=frozenset({"staff"})), user="kim")
    assert judged.decision.allowed


async def test_each_address_of_a_name_is_judged_and_only_the_allowed_remain_in_their_order() -> None:
    rules = to("203.0.113.0/24"), to("2001:db8::/32")
    lookup = Lookup(
        "198.51.100.1", "203.0.113.9", "169.254.169.254", "2001:db8::5", "127.0.0.1", "203.0.113.2"
    )
    judged = await ask("a.test", *rules, lookup=lookup)
    assert [str(address) for address in judged.addresses] == ["203.0.113.9", "2001:db8::5", "203.0.113.2"]
    assert [decision.rule for decision in judged.addresses.values()] == [
        "allow 203.0.113.0/24",
        "allow 2001:db8::/32",
        "allow 203.0.113.0/24",
    ]
    assert judged.decision == judged.addresses[IPv4Address("203.0.113.9")]
    assert all(decision.inputs.address == address for address, decision in judged.addresses.items())
    assert lookup.asked == ["a.test"]


async def test_without_an_allowed_address_the_first_refusal_is_the_answer() -> None:
    lookup = Lookup("169.254.169.254", "127.0.0.1")
    judged = await ask("a.test", ALL, lookup=lookup)
    assert not judged.addresses
    assert judged.decision.reason == "guarded_metadata"


async def test_an_address_that_could_still_be_allowed_is_asked_about_before_others_are_refused() -> None:
    rules = to("198.51.100.0/24", Action.DENY), Rule("kim's", Action.ALLOW, users=frozenset({"kim"}))
    both = Rule("a", Action.ALLOW, to_networks=(ip_network("192.0.2.0/24"),))
    judged = await ask("a.test", both, *rules, lookup=Lookup("198.51.100.1", "203.0.113.1"), user=UNKNOWN)
    assert judged.decision.needs == "user"


async def test_an_address_that_comes_twice_or_disguised_is_one() -> None:
    judged = await ask("a.test", ALL, lookup=Lookup("198.51.100.1", "::ffff:198.51.100.1", "198.51.100.1"))
    assert list(judged.addresses) == [IPv4Address("198.51.100.1")]


async def test_a_name_that_leads_to_one_of_our_own_addresses_is_refused() -> None:
    own = frozenset({"203.0.113.1"})
    for host, lookup in [
        ("a.test", Lookup("203.0.113.1")),
        ("203.0.113.1", None),
        ("::ffff:203.0.113.1", None),
    ]:
        judged = await ask(host, ALL, lookup=lookup, own=own)
        assert judged.decision.reason == "guarded_own_address"
        assert not judged.addresses


async def test_what_the_resolver_raises_comes_through() -> None:
    with pytest.raises(NameNotFound):
        await ask("a.test", ALL)


@pytest.mark.parametrize("address", ["203.0.113.1", "64:ff9b::cb00:7101", "2002:cb00:7101::1"])
def test_an_own_address_is_known_in_every_form_that_leads_to_it(address: str) -> None:
    assert is_leading_to(ip_address(address), lambda a: a == IPv4Address("203.0.113.1"))
    assert not is_leading_to(ip_address(address), lambda a: a == IPv6Address("2001:db8::1"))


def test_schedules_go_by_the_machines_own_clock() -> None:
    local = datetime.fromtimestamp(NOW_S).astimezone()
    assert local_minute(NOW_S) == local.weekday() * 1440 + local.hour * 60 + local.minute
    assert local_minute(NOW_S + 60) == (local_minute(NOW_S) + 1) % (7 * 1440)


def test_rules_of_these_tests_mean_what_they_say() -> None:
    assert to("203.0.113.0/24").to_networks == (IPv4Network("203.0.113.0/24"),)
