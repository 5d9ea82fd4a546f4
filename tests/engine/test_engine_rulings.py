"""What is in force may change while connections live, and the end of the process leaves none of them out."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable

import pytest
from tests.engine.filters import Copying
from tests.engine.rig import Plugin, Rig, attaching, entry, wait_for

from doorward.engine.target import target_of
from doorward.policy.model import Action, Rule

pytestmark = pytest.mark.anyio

MakeRig = Callable[..., Rig]


async def test_a_new_ruling_is_for_new_connections_and_the_old_ones_live_on(make_rig: MakeRig) -> None:
    heard: list[tuple[str, str]] = []
    old = entry(Plugin("old", heard, connect=attaching(Copying())))
    rig = make_rig(old)
    talk = await rig.converse()
    await talk.both_ways(b"before")
    rig.engine.ruling = rig.ruling([], [Rule("no", Action.DENY)])
    for session in rig.engine.sessions:
        session.forget_filters(frozenset())
    assert not rig.engine.still_allowed(talk.connection)
    refused = await rig.connect()
    assert refused.refusal is not None
    await talk.both_ways(b"after")
    await talk.end()
    await wait_for(lambda: len(rig.recorder.records) == 2, "both are on record")
    assert heard == [("old", "connect"), ("old", "established"), ("old", "terminating")]
    assert len(old.application_filter.sessions) == 1  # type: ignore[attr-defined]  # a Plugin: no new object


async def test_still_allowed_asks_what_is_in_force_now_for_the_very_address(make_rig: MakeRig) -> None:
    rig = make_rig(lookup=lambda _: (ipaddress.IPv4Address("127.0.0.1"),))
    connection = await rig.connect(target_of("a.test", rig.server.port))
    assert rig.engine.still_allowed(connection)
    other = Rule("other", Action.ALLOW, to_networks=(ipaddress.ip_network("127.0.0.9/32"),))
    rig.engine.ruling = rig.ruling([], [other])
    assert not rig.engine.still_allowed(connection)
    connection.kill()
    assert not rig.engine.still_allowed(connection)


async def test_connections_count_for_their_session_until_they_end(make_rig: MakeRig) -> None:
    rig = make_rig()
    talks = [await rig.converse() for _ in range(3)]
    (session,) = rig.engine.sessions
    assert session.connections == 3
    for talk in talks:
        talk.connection.kill()
    await wait_for(lambda: len(rig.recorder.records) == 3, "all are on record")
    assert session.connections == 0
    assert {record.session for record in rig.recorder.records} == {session.id}
    assert len({record.connection for record in rig.recorder.records}) == 3


async def test_ending_the_process_writes_the_record_of_every_connection_and_tells_its_filters(
    make_rig: MakeRig,
) -> None:
    heard: list[tuple[str, str]] = []
    rig = make_rig(entry(Plugin("it", heard, connect=attaching(Copying()))))
    for _ in range(3):
        await (await rig.converse()).both_ways(b"x")
    for connection in list(rig.engine.connections.values()):
        rig.engine.kill(connection, "shutdown")
    await rig.supervisor.close(5.0)
    assert [record.end for record in rig.recorder.records] == ["shutdown"] * 3
    assert heard.count(("it", "terminating")) == 3
