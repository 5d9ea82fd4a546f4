"""Floods, deadlines, reloads and ends: what holds whatever is asked for."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest
from tests.engine.names.messages import Read, ask
from tests.engine.names.server import ORIGIN, RULES, Asker, lookup
from tests.engine.rig import Rig, wait_for

from doorward.config.model import Limits
from doorward.engine.names import answering, asked
from doorward.net.resolve import Addresses
from doorward.policy.model import Action, Rule

pytestmark = pytest.mark.anyio

MakeRig = Callable[..., Rig]


async def test_what_is_malformed_is_told_so_and_on_record(make_rig: MakeRig) -> None:
    asker = Asker(make_rig(rules=RULES))
    query = ask("four.test")
    assert Read(await asker.send(query[:-1])).code == "FORMERR"
    assert await asker.send(b"GET / HTTP/1.1"[:11]) == b""
    assert await asker.send(query[:2] + b"\x84" + query[3:]) == b"", "an answer gets none"
    assert [record.reason for record in asker.records] == ["dns_malformed"]
    assert asker.records[0].detail == "malformed: FormError"


async def test_a_flood_is_refused_and_leaves_one_record(
    make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asked, "BURST_QUERIES", 3)
    monkeypatch.setattr(asked, "QUERIES_PER_SECOND", 0.0)
    asker = Asker(make_rig(lookup=lookup, rules=RULES))
    codes = [(await asker.ask("four.test")).code for _ in range(50)]
    assert codes == ["NOERROR"] * 3 + ["REFUSED"] * 47
    assert await asker.send(b"\0" * 5) == b""
    assert [record.reason for record in asker.records] == ["dns_query_rate"]
    told: list[bytes] = []
    asker.server.datagram(asker.session, ORIGIN, ask("four.test"), told.append)
    await asyncio.sleep(0)
    assert told == [], "datagrams are dropped"


async def test_a_datagram_is_answered_in_a_task(make_rig: MakeRig) -> None:
    asker = Asker(make_rig(lookup=lookup, rules=RULES))
    told: list[bytes] = []
    for data in (ask("four.test"), b"", ask("www.bad.test")):
        asker.server.datagram(asker.session, ORIGIN, data, told.append)
    await wait_for(lambda: len(told) == 2, "two answers")
    assert sorted(Read(data).code for data in told) == ["NOERROR", "NXDOMAIN"]


class Slow:
    """A resolver that hangs until it is let go."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.under_way = 0
        self._lock = threading.Lock()

    def lookup(self, name: str) -> Addresses:
        with self._lock:
            self.under_way += 1
        assert self.go.wait(10)
        return lookup("four.test")


async def test_one_session_has_few_names_looked_up_at_once(make_rig: MakeRig) -> None:
    slow = Slow()
    asker = Asker(make_rig(lookup=slow.lookup, rules=RULES))
    told: list[bytes] = []
    try:
        for number in range(asked.WAITING_MAX + 10):
            asker.server.datagram(asker.session, ORIGIN, ask(f"{number}.test"), told.append)
        await wait_for(lambda: slow.under_way == asked.LOOKUPS_MAX, "as many as may be")
        assert Read(await asker.send(ask("one-more.test"))).code == "REFUSED"
        assert slow.under_way == asked.LOOKUPS_MAX
        assert asker.session.connections >= asked.WAITING_MAX, "it is not idle"
    finally:
        slow.go.set()
    await wait_for(lambda: len(told) == asked.WAITING_MAX + 10, "all answers")
    assert asker.session.asked is not None
    assert (asker.session.asked.waiting, asker.session.connections) == (0, 0)


async def test_all_sessions_together_wait_for_so_many(
    make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answering, "WAITING_OF_ALL_MAX", 2)
    slow = Slow()
    asker = Asker(make_rig(lookup=slow.lookup, rules=RULES))
    others = [asker.rig.engine.sessions.get(f"198.51.100.{n}", None) for n in range(2)]
    told: list[bytes] = []
    try:
        for session in others:
            asker.server.datagram(session, ORIGIN, ask(f"{session.id}.test"), told.append)
        await wait_for(lambda: slow.under_way == 2, "both look-ups")
        assert Read(await asker.send(ask("four.test"))).code == "REFUSED"
    finally:
        slow.go.set()
    await wait_for(lambda: len(told) == 2, "both answers")
    assert (await asker.ask("four.test")).code == "NOERROR"


async def test_a_look_up_that_hangs_is_a_failure_in_time(make_rig: MakeRig) -> None:
    slow = Slow()
    asker = Asker(make_rig(lookup=slow.lookup, rules=RULES, limits=Limits(resolve_timeout_s=0.05)))
    try:
        reply = await asker.ask("four.test")
    finally:
        slow.go.set()
    assert (reply.code, reply.extended) == ("SERVFAIL", (22, "timed_out"))
    assert [(r.action, r.reason) for r in asker.records] == [("fail", "timed_out")]


async def test_one_that_goes_away_meanwhile_leaves_nothing(make_rig: MakeRig) -> None:
    slow = Slow()
    asker = Asker(make_rig(lookup=slow.lookup, rules=RULES))
    asking = asyncio.Task(asker.send(ask("four.test")))
    await wait_for(lambda: slow.under_way == 1, "a look-up")
    asking.cancel()
    await asyncio.wait([asking], timeout=5)
    assert asking.cancelled()
    assert asker.session.connections == 0
    slow.go.set()


async def test_the_policy_in_force_answers(make_rig: MakeRig) -> None:
    rig = make_rig(lookup=lookup, rules=RULES)
    asker = Asker(rig)
    assert (await asker.ask("four.test")).code == "NOERROR"
    rig.engine.ruling = rig.ruling((), [Rule("closed", Action.DENY)])
    assert (await asker.ask("four.test")).extended == (15, 'rule_deny: "closed"')


async def test_rules_for_users_are_for_who_the_session_is(make_rig: MakeRig) -> None:
    rig = make_rig(lookup=lookup, rules=[Rule("kims", Action.ALLOW, users=frozenset({"kim"}))])
    asker = Asker(rig)
    assert (await asker.ask("four.test")).extended == (15, 'user_needed: "kims"')
    asker.session = rig.engine.sessions.get("127.0.0.1", "kim")
    assert (await asker.ask("four.test")).code == "NOERROR"


async def test_without_a_log_nothing_is_told(make_rig: MakeRig) -> None:
    asker = Asker(make_rig(rules=RULES))
    asker.rig.recorder.trouble = "the disk is full"
    reply = await asker.ask("four.test")
    assert (reply.code, reply.extended) == ("SERVFAIL", (14, "log_unavailable"))


async def test_a_session_that_has_ended_is_told_nothing(make_rig: MakeRig) -> None:
    asker = Asker(make_rig(rules=RULES))
    asker.rig.engine.sessions.remove(asker.session)
    assert await asker.send(ask("four.test")) == b""
    asker.server.datagram(asker.session, ORIGIN, ask("four.test"), lambda _: pytest.fail("an answer"))
    assert asker.session.asked is None


async def test_a_session_that_ends_meanwhile_keeps_nothing(make_rig: MakeRig) -> None:
    slow = Slow()
    asker = Asker(make_rig(lookup=slow.lookup, rules=RULES))
    asking = asyncio.Task(asker.send(ask("home.test")))
    await wait_for(lambda: slow.under_way == 1, "a look-up")
    asker.rig.engine.sessions.remove(asker.session)
    slow.go.set()
    assert Read(await asking).code == "NOERROR"
    assert asker.session.asked is None
    asker.server.put_on_record(asker.session, ORIGIN, "udp", "x.test", "rule_deny")
    assert asker.session.asked is None
    assert asker.session.connections == 0
