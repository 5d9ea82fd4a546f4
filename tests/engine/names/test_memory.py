"""A connection to an address has the name again that was asked for, and an address nobody asked for has none."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address

import pytest
from tests.engine.rig import LOOPBACK, Rig

from doorward.engine.names.asked import NamesAsked
from doorward.engine.names.memory import ADDRESSES_MAX, KEPT_S, NAMES_MAX, Memory, target_of_address
from doorward.engine.session import Session
from doorward.engine.target import Target
from doorward.policy.model import Action, PortRange, Rule

pytestmark = pytest.mark.anyio

MakeRig = Callable[..., Rig]
ONE, OTHER = ip_address("192.0.2.1"), ip_address("2001:db8::1")


def test_the_name_asked_for_last_comes_first() -> None:
    memory = Memory()
    memory.keep("a.org", [ONE, OTHER], 0.0)
    memory.keep("b.org", [ONE], 1.0)
    assert memory.names(ONE, 2.0) == ("b.org", "a.org")
    assert memory.names(OTHER, 2.0) == ("a.org",)
    memory.keep("a.org", [ONE], 3.0)
    assert memory.names(ONE, 4.0) == ("a.org", "b.org")
    assert memory.names(ip_address("192.0.2.9"), 4.0) == ()


def test_a_name_is_kept_for_a_day_from_its_last_answer() -> None:
    memory = Memory()
    memory.keep("a.org", [ONE], 0.0)
    memory.keep("b.org", [ONE], 10.0)
    assert memory.names(ONE, KEPT_S - 1) == ("b.org", "a.org")
    assert memory.names(ONE, KEPT_S) == ("b.org",)
    assert memory.names(ONE, KEPT_S + 10) == ()


def test_both_tables_have_a_cap_and_the_oldest_leaves() -> None:
    memory = Memory()
    for number in range(NAMES_MAX + 1):
        memory.keep(f"{number}.org", [ONE], float(number))
    assert len(memory.names(ONE, 10.0)) == NAMES_MAX
    assert "0.org" not in memory.names(ONE, 10.0)
    for number in range(ADDRESSES_MAX):
        memory.keep("many.org", [ip_address(0x0A00_0000 + number)], 20.0)
    assert len(memory) == ADDRESSES_MAX
    assert memory.names(ONE, 20.0) == ()


def session_that_asked(rig: Rig, *names: str) -> Session:
    session = rig.engine.sessions.get("127.0.0.1", None)
    session.asked = NamesAsked(0.0)
    for name in names:
        session.asked.memory.keep(name, [ip_address("127.0.0.1")], rig.poller.loop.time())
    return session


async def test_who_never_asked_means_the_address(make_rig: MakeRig) -> None:
    rig = make_rig()
    session = rig.engine.sessions.get("127.0.0.1", None)
    assert target_of_address(rig.engine, session, ONE, 443) == Target(None, ONE, 443)
    assert session.asked is None, "nothing was made for it"
    asking = session_that_asked(rig, "a.test")
    assert target_of_address(rig.engine, asking, ONE, 443) == Target(None, ONE, 443)


async def test_the_name_comes_with_the_address_in_whatever_form_it_is_dialled(make_rig: MakeRig) -> None:
    rig = make_rig()
    session = session_that_asked(rig, "a.test")
    for text in ("127.0.0.1", "::ffff:127.0.0.1"):
        target = target_of_address(rig.engine, session, ip_address(text), 443)
        assert target == Target("a.test", ip_address("127.0.0.1"), 443)
        assert str(target) == "a.test (127.0.0.1:443)"


async def test_of_several_names_it_is_the_last_that_policy_lets_go_there(make_rig: MakeRig) -> None:
    rules = [
        Rule(
            "web", Action.ALLOW, to_names=("web.test",), to_networks=None, ports=(PortRange("tcp", 443, 443),)
        ),
        Rule("time", Action.ALLOW, to_names=("time.test",), ports=(PortRange("udp", 123, 123),)),
    ]
    loopback = [Rule("local", Action.ALLOW, to_networks=LOOPBACK, ports=(PortRange("tcp", 8, 8),))]
    rig = make_rig(rules=rules + loopback)
    session = session_that_asked(rig)
    assert session.asked is not None
    for name in ("web.test", "time.test", "mail.test"):
        session.asked.memory.keep(name, [ONE], rig.poller.loop.time())

    def host(port: int, transport: str) -> str | None:
        return target_of_address(rig.engine, session, ONE, port, transport).host  # type: ignore[arg-type]

    assert host(443, "tcp") == "web.test"
    assert host(123, "udp") == "time.test"
    assert host(25, "tcp") == "mail.test", "nobody may, so it is the one asked for last"


async def test_the_name_is_judged_and_on_record_and_the_address_is_the_one_dialled(make_rig: MakeRig) -> None:
    rules = [
        Rule("named", Action.DENY, to_names=("bad.test",)),
        Rule("local", Action.ALLOW, to_networks=LOOPBACK),
    ]
    rig = make_rig(rules=rules)
    session = session_that_asked(rig, "good.test")
    address = ip_address("127.0.0.1")
    target = target_of_address(rig.engine, session, address, rig.server.port)
    connection = await rig.connect(target, session=session)
    assert connection.refusal is None, "and nothing was looked up again"
    assert connection.peer == address
    rig.engine.kill(connection)
    record = await rig.record()
    assert (record.host, record.address, record.rule) == ("good.test", "127.0.0.1", "local")
    rig.recorder.records.clear()
    session_that_asked(rig, "bad.test")
    refused = await rig.connect(
        target_of_address(rig.engine, session, address, rig.server.port), session=session
    )
    assert refused.refusal is not None
    assert (await rig.record()).rule == "named"
    assert (await rig.record()).host == "bad.test"


async def test_what_was_asked_ends_with_the_session(make_rig: MakeRig) -> None:
    rig = make_rig()
    session = session_that_asked(rig, "a.test")
    rig.engine.sessions.remove(session)
    assert session.asked is None
