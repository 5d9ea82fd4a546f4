"""The firewall's own connections: nobody is asked, everything is on record, and clients' limits are not theirs."""

from __future__ import annotations

import json
from collections.abc import Callable
from ipaddress import ip_address

import pytest
from tests.engine.rig import Plugin, Rig, entry
from tests.engine.socket_rig import nobodys, systems, users

from doorward.api import AccessDenied, ClientKind, ConnectionRefused, NameNotFound, OutOfResources, Side
from doorward.api.events import EventKind
from doorward.config.model import Limits

pytestmark = pytest.mark.anyio
MakeRig = Callable[..., Rig]


async def test_no_policy_no_filter_no_user_but_a_record_with_the_filters_name(make_rig: MakeRig) -> None:
    plugin = Plugin("hearing", [])
    everything = (EventKind.CONNECT, EventKind.RESOLVE, EventKind.ESTABLISHED)
    rig = make_rig(
        entry(plugin, events=everything, clients=tuple(ClientKind)),
        rules=(),
        lookup=lambda _: (ip_address("127.0.0.1"),),
    )
    sock = systems(rig)
    await sock.connect("server.test", rig.server.port)
    rig.keep(await rig.server.accept())
    await sock.close()
    assert plugin.heard == []
    record = await rig.record()
    assert (record.entry, record.action, record.reason, record.rule) == (
        "system",
        "allow",
        "system_socket",
        None,
    )
    assert (record.user, record.client_address, record.host) == (None, "0.0.0.0", "server.test")
    assert (record.address, record.port) == ("127.0.0.1", rig.server.port)
    assert json.loads(record.filters or "") == [["mine", "opened", ""]]


async def test_what_fails_is_on_record_too(make_rig: MakeRig) -> None:
    def nothing(_: str) -> tuple[()]:
        raise NameNotFound("no such name", side=Side.EXTERNAL)

    rig = make_rig(lookup=nothing)
    with pytest.raises(NameNotFound):
        await systems(rig).connect("server.test", 80)
    rig.server.close()
    with pytest.raises(ConnectionRefused):
        await systems(rig).connect("127.0.0.1", rig.server.port)
    assert [(r.action, r.reason, r.entry) for r in rig.recorder.records] == [
        ("fail", "name_not_found", "system"),
        ("fail", "connection_refused", "system"),
    ]


async def test_limits_of_clients_do_not_count_and_the_log_does(make_rig: MakeRig) -> None:
    rig = make_rig(limits=Limits(connections_per_client_max=1, connects_per_minute_per_client_max=1))
    session = nobodys(rig)
    open_ones = [systems(rig, session) for _ in range(3)]
    for sock in open_ones:
        await sock.connect("127.0.0.1", rig.server.port)
    first, second = users(rig), users(rig)
    await first.connect("127.0.0.1", rig.server.port)
    with pytest.raises(AccessDenied) as refused:
        await second.connect("127.0.0.1", rig.server.port)
    assert refused.value.reason in ("client_connections", "client_connect_rate")
    rig.recorder.trouble = "the disk is full"
    with pytest.raises(OutOfResources):
        await systems(rig, session).connect("127.0.0.1", rig.server.port)
    for sock in (*open_ones, first):
        await sock.close()
