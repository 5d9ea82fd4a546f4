"""A listening port is judged twice: before anybody has come, and for each peer that does."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from types import SimpleNamespace
from typing import TYPE_CHECKING, Final, cast

import pytest

from doorward.engine.judgement import Judged, judge
from doorward.engine.target import Target
from doorward.policy.evaluation import Policy
from doorward.policy.model import Action, IPAddress, PortRange, Rule, Transport

if TYPE_CHECKING:
    from doorward.engine.session import Session

pytestmark = pytest.mark.anyio

_CLIENT: Final = SimpleNamespace(address=ip_address("192.0.2.7"), groups=frozenset(), programs=frozenset())
SESSION: Final = cast("Session", _CLIENT)
PORTS: Final = (PortRange("tcp-in", 5000, 5100),)
PEERS: Final = Rule("peers", Action.ALLOW, to_networks=(ip_network("198.51.100.0/24"),), ports=PORTS)


class NoLookup:
    """Peers have no names."""

    async def resolve(self, name: str) -> tuple[IPAddress, ...]:
        raise AssertionError(name)


async def ask(peer: str | None, *rules: Rule, port: int = 5000, transport: Transport = "tcp-in") -> Judged:
    target = Target(None, None if peer is None else ip_address(peer), port)
    return await judge(
        Policy(rules, "revision"),
        NoLookup(),
        lambda address: str(address) == "198.51.100.1",
        SESSION,
        target,
        user=None,
        now_s=0.0,
        transport=transport,
    )


async def test_before_anybody_has_come_the_answer_hangs_on_the_peer() -> None:
    judged = await ask(None, PEERS)
    assert (judged.decision.needs, judged.decision.rule, judged.addresses) == ("address", "peers", {})


@pytest.mark.parametrize(
    ("rules", "port", "transport"),
    [
        ((), 5000, "tcp-in"),
        ((PEERS,), 5101, "tcp-in"),
        ((PEERS,), 5000, "udp-in"),
        ((Rule("none", Action.DENY, ports=PORTS), PEERS), 5000, "tcp-in"),
        ((Rule("anything", Action.ALLOW),), 5000, "tcp-in"),
    ],
)
async def test_a_port_that_no_peer_may_come_to_is_refused_at_once(
    rules: tuple[Rule, ...], port: int, transport: Transport
) -> None:
    judged = await ask(None, *rules, port=port, transport=transport)
    assert judged.decision.action is Action.DENY


async def test_each_peer_is_judged_by_its_address() -> None:
    allowed = await ask("198.51.100.7", PEERS)
    assert allowed.decision.allowed
    assert list(allowed.addresses) == [ip_address("198.51.100.7")]
    assert (await ask("203.0.113.7", PEERS)).decision.reason == "default_deny"
    assert (await ask("198.51.100.1", PEERS)).decision.reason == "guarded_own_address"
