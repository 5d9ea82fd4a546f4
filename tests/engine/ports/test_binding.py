"""A client's wish for a port: where it is, whom policy lets come there, what filters hear, what is refused."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import Any

import pytest
from tests.engine.rig import LOCAL_RULE, Plugin, Rig
from tests.engine.visits import CLIENT, PEERS_RULE, RULES, Visits, hearing
from tests.engine.wires import Server

from doorward.api import EventKind, NameNotFound, NotConnected, ReplyHint, Side
from doorward.api.ip_filter import IpFilter
from doorward.engine.dispatch import HANDLERS
from doorward.policy.model import Action, PortRange, Rule

pytestmark = pytest.mark.anyio

MakeRig = Callable[..., Rig]
LOOPBACK = LOCAL_RULE.to_networks


def names(**found: str) -> Callable[[str], tuple[Any, ...]]:
    def look_up(name: str) -> tuple[Any, ...]:
        if name not in found:
            raise NameNotFound("no such name", side=Side.EXTERNAL)
        return tuple(map(ipaddress.ip_address, found[name].split()))

    return look_up


async def test_for_an_announced_peer_only_the_address_that_faces_it_is_bound(make_rig: MakeRig) -> None:
    rig = make_rig(rules=RULES)
    here = Visits(rig)
    listening, port = await here.open("127.0.0.5", reached_on="192.0.2.9")
    assert listening.external_socket_name[0].startswith("127.")
    assert listening.ip_filter == IpFilter("127.0.0.5")
    here.visit(port.name, "127.0.0.5")
    await here.came()


async def test_for_anybody_every_address_is_bound_and_the_one_that_the_client_knows_is_told(
    make_rig: MakeRig,
) -> None:
    rig = make_rig(rules=RULES)
    here = Visits(rig)
    listening, port = await here.open(None, reached_on="127.0.0.9")
    assert listening.external_socket_name == ("127.0.0.9", port.name[1])
    here.visit(("127.0.0.7", port.name[1]), "127.0.0.5")
    await here.came()
    assert here.delivered[0].external_socket_name == ("127.0.0.7", port.name[1])
    other, _ = await here.open(None, reached_on="::1")
    assert other.external_socket_name[0] == "0.0.0.0"


async def test_a_name_is_looked_up_and_all_its_addresses_of_one_family_may_come(make_rig: MakeRig) -> None:
    rig = make_rig(rules=RULES, lookup=names(**{"peers.test": "127.0.0.5 ::1 127.0.0.6"}))
    here = Visits(rig)
    listening, port = await here.open("peers.test")
    assert listening.ip_filter == IpFilter("127.0.0.5", "127.0.0.6")
    here.visit(port.name, "127.0.0.6")
    await here.came()


async def test_a_name_that_does_not_exist_opens_nothing(make_rig: MakeRig) -> None:
    rig = make_rig(rules=RULES, lookup=names())
    connection, port = await Visits(rig).asked("nobody.test")
    assert port is None
    assert connection.refusal is not None
    assert (connection.refusal.action, connection.refusal.reason) == ("fail", "name_not_found")
    assert connection.refusal.hint is ReplyHint.NAME_NOT_FOUND


async def test_a_name_that_no_rule_could_let_come_is_never_looked_up(make_rig: MakeRig) -> None:
    rig = make_rig(rules=[LOCAL_RULE])  # whose rig fails the test if anything is
    connection, port = await Visits(rig).asked("peers.test")
    assert port is None
    assert connection.refusal is not None
    assert connection.refusal.reason == "default_deny"
    assert rig.lookups == []


async def test_a_filter_that_takes_a_names_addresses_away_does_not_open_it_to_everybody(
    make_rig: MakeRig,
) -> None:
    async def take_away(event: Any) -> None:
        event.set_result()

    plugin = Plugin("it", [], resolve=take_away)
    resolving = hearing(plugin, EventKind.RESOLVE)
    rig = make_rig(resolving, rules=RULES, lookup=names(**{"peers.test": "127.0.0.5"}))
    connection, port = await Visits(rig).asked("peers.test")
    assert port is None
    assert connection.refusal is not None
    assert connection.refusal.reason == "name_not_found"


async def test_of_a_names_addresses_those_may_come_that_policy_allows(make_rig: MakeRig) -> None:
    only = Rule(
        "one",
        Action.ALLOW,
        to_networks=(ipaddress.ip_network("127.0.0.6/32"),),
        ports=(PortRange("tcp-in", 0, 65_535),),
    )
    rig = make_rig(rules=[only], lookup=names(**{"peers.test": "127.0.0.5 127.0.0.6"}))
    here = Visits(rig)
    listening, port = await here.open("peers.test")
    assert listening.ip_filter == IpFilter("127.0.0.6")
    assert await here.visit(port.name, "127.0.0.5").is_reset()


@pytest.mark.parametrize("peer", [CLIENT, None])
async def test_a_rule_with_ports_has_the_port_chosen_among_them(make_rig: MakeRig, peer: str | None) -> None:
    rule = Rule("few", Action.ALLOW, 7, to_networks=LOOPBACK, ports=(PortRange("tcp-in", 21_000, 21_031),))
    rig = make_rig(rules=[rule])
    here = Visits(rig)
    listening, port = await here.open(peer)
    assert 21_000 <= port.name[1] <= 21_031
    assert listening.decision.rule == "few"
    here.visit(port.name)
    await here.came()


async def test_when_all_its_ports_are_taken_the_address_is_in_use(make_rig: MakeRig) -> None:
    taken = Server()
    rule = Rule(
        "one", Action.ALLOW, to_networks=LOOPBACK, ports=(PortRange("tcp-in", taken.port, taken.port),)
    )
    rig = make_rig(rules=[rule])
    connection, port = await Visits(rig).asked()
    taken.close()
    assert port is None
    assert connection.refusal is not None
    assert connection.refusal.reason == "guarded_loopback"  # the answer for the port that could be had


@pytest.mark.parametrize(
    ("rules", "reason", "rule"),
    [
        ([Rule("no", Action.DENY), PEERS_RULE], "rule_deny", "no"),
        ([Rule("any", Action.ALLOW, to_networks=LOOPBACK)], "guarded_loopback", "built-in: loopback"),
        ([Rule("users", Action.ALLOW, to_networks=LOOPBACK, ports=PEERS_RULE.ports, users=frozenset({"kim"}))],
         "user_needed", "users"),
        ([Rule("users", Action.ALLOW, to_networks=LOOPBACK, ports=(PortRange("tcp-in", 21_000, 21_100),),
               users=frozenset({"kim"}))], "user_needed", "users"),
    ],
)  # fmt: skip
async def test_what_policy_refuses_opens_nothing_and_no_filter_sees(
    make_rig: MakeRig, rules: list[Rule], reason: str, rule: str
) -> None:
    heard: list[tuple[str, str]] = []
    rig = make_rig(hearing(Plugin("it", heard)), rules=rules)
    connection, port = await Visits(rig).asked()
    assert port is None
    assert connection.refusal is not None
    assert (connection.refusal.action, connection.refusal.reason) == ("deny", reason)
    record = await rig.record()
    assert (record.operation, record.rule, record.end) == ("bind", rule, "refused")
    assert heard == []


async def test_a_wished_port_is_had_if_it_is_free_and_another_one_if_not(make_rig: MakeRig) -> None:
    rig = make_rig(rules=RULES)
    here = Visits(rig)
    free = Server()
    free.close()
    _, port = await here.open(None, port=free.port)
    assert port.name[1] == free.port
    _, other = await here.open(None, port=free.port)
    assert other.name[1] != free.port


async def test_filters_hear_what_was_asked_for_and_then_where_it_listens(make_rig: MakeRig) -> None:
    seen: list[Any] = []

    async def note(event: Any) -> None:
        seen.append(event)
        if len(seen) == 1:
            with pytest.raises(NotConnected):
                _ = event.connection.external_socket_name

    rig = make_rig(hearing(Plugin("it", [], bind=note, listen=note)), rules=RULES)
    _, port = await Visits(rig).open(None, port=0)
    bind, listen = seen
    assert (bind.transport, bind.address, bind.port, bind.is_secondary) == ("tcp", "", 0, False)
    assert (listen.address, listen.port) == port.name
    assert bind.connection is listen.connection


@pytest.mark.parametrize("kind", [EventKind.BIND, EventKind.LISTEN])
async def test_a_filter_that_raises_closes_the_port(make_rig: MakeRig, kind: EventKind) -> None:
    async def fail(event: Any) -> None:
        raise RuntimeError("oh")

    assert HANDLERS[kind]
    rig = make_rig(hearing(Plugin("it", [], **{kind: fail})), rules=RULES)
    connection, port = await Visits(rig).asked()
    assert port is None
    assert connection.refusal is not None
    assert connection.refusal.reason == "filter_failed"
    assert rig.engine.arrivals.open == 0


async def test_a_filter_that_denies_looks_like_an_address_in_use(make_rig: MakeRig) -> None:
    async def deny(event: Any) -> None:
        event.connection.deny("not_now")

    rig = make_rig(hearing(Plugin("it", [], bind=deny)), rules=RULES)
    connection, port = await Visits(rig).asked()
    assert port is None
    assert connection.refusal is not None
    assert (connection.refusal.reason, connection.refusal.hint) == ("not_now", ReplyHint.ADDRESS_IN_USE)
    assert (await rig.record()).rule == "peers"


async def test_a_peer_that_nobody_can_reach_opens_nothing(make_rig: MakeRig) -> None:
    rig = make_rig(rules=[Rule("all", Action.ALLOW, ports=PEERS_RULE.ports)])
    connection, port = await Visits(rig).asked("255.255.255.255")
    assert port is None
    assert connection.refusal is not None
    assert connection.refusal.reason in ("unreachable", "guarded_not_unicast")
