"""A socket is its maker's: on record under its name, counted, and ended when it leaves."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from tests.engine.rig import NAMED_RULES, Plugin, Rig, entry
from tests.engine.socket_rig import INBOUND, nobodys, users, users_udp

from doorward.api import ConnectEvent, IpFilter, OutOfResources, Terminating
from doorward.engine.at_work import as_work_of
from doorward.engine.sockets import kept
from doorward.engine.sockets.kept import end_those_of
from doorward.policy.model import Action, PortRange, Rule

pytestmark = pytest.mark.anyio
MakeRig = Callable[..., Rig]
DATAGRAMS = Rule(
    "ask", Action.ALLOW, to_networks=NAMED_RULES[0].to_networks, ports=(PortRange("udp", 0, 65_535),)
)


async def made(make: Callable[..., Any], *arguments: Any) -> Any:
    return make(*arguments)


async def test_a_users_sockets_are_on_record_with_the_filter_that_made_them(make_rig: MakeRig) -> None:
    rig = make_rig(rules=(*NAMED_RULES, INBOUND, DATAGRAMS))
    mine = entry(Plugin("mine", []))
    sock, listener, datagrams = [
        await as_work_of(mine, made(make, rig)) for make in (users, users, users_udp)
    ]
    listener.set_ip_filter(IpFilter("127.0.0.1"))
    await listener.bind("127.0.0.1", 0)
    await listener.listen()
    await sock.connect(*listener.socket_name)
    arrived = await listener.accept()
    await datagrams.bind("127.0.0.1", 0)
    for one in (sock, arrived, listener, datagrams):
        await one.close()
    assert [json.loads(record.filters or "null") for record in rig.recorder.records] == [
        [["mine", "opened", ""]]
    ] * 4


async def test_in_a_handler_it_is_the_handlers_filter(make_rig: MakeRig) -> None:
    async def call_out(event: ConnectEvent) -> None:
        sock = event.connection.session.create_network_socket()
        await sock.connect("127.0.0.1", rig.server.port)
        await sock.close()

    rig = make_rig(entry(Plugin("calling", [], connect=call_out)))
    connection = await rig.connect()
    [record] = rig.recorder.records
    assert json.loads(record.filters or "") == [["calling", "opened", ""]]
    connection.kill()


async def test_all_of_them_end_when_their_filter_leaves_and_no_others(make_rig: MakeRig) -> None:
    rig = make_rig(rules=(*NAMED_RULES, INBOUND))
    mine, others = entry(Plugin("mine", [])), entry(Plugin("others", []))
    talking, bound, listening = [await as_work_of(mine, made(users, rig)) for _ in range(3)]
    another = await as_work_of(others, made(users, rig))
    for sock in (talking, another):
        await sock.connect("127.0.0.1", rig.server.port)
        rig.keep(await rig.server.accept())
    for sock in (bound, listening):
        await sock.bind("127.0.0.1", 0)
    await listening.listen()
    end_those_of(mine.application_filter)
    end_those_of(mine.application_filter)
    assert {record.end for record in rig.recorder.records} == {"filter_left"}
    for call in (talking.recv(), bound.listen(), listening.accept()):
        with pytest.raises(Terminating):
            await call
    assert another.open
    await another.close()


async def test_a_filter_has_so_many_in_all_sessions_together(
    make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "SOCKETS_MAX", 4)
    rig = make_rig()
    mine = entry(Plugin("mine", []))
    sockets = [await as_work_of(mine, made(users, rig, None, nobodys(rig))) for _ in range(4)]
    with pytest.raises(OutOfResources):
        await as_work_of(mine, made(users, rig))
    users(rig)  # somebody else's
    await sockets.pop().close()
    await as_work_of(mine, made(users, rig))
