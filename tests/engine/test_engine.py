"""Connections from the request to the record: whatever ends one, it ends once, frees what it held, and is on record."""

from __future__ import annotations

import asyncio
import ipaddress
import os
from collections.abc import Callable

import pytest
from tests.engine.filters import Copying, Leaning, Leaving, Pumping
from tests.engine.rig import Plugin, Rig, attaching, entry, wait_for

from doorward.api import Connection, NameNotFound, OutOfResources, Refuse, Side, Socket, Terminating
from doorward.config.model import Limits
from doorward.engine.association import FilterEntry
from doorward.engine.joint import joint
from doorward.engine.outcome import End
from doorward.engine.target import target_of
from doorward.net.python_relay import PythonRelay
from doorward.policy.model import Action, Rule

pytestmark = pytest.mark.anyio

MakeRig = Callable[..., Rig]


def copiers(count: int) -> list[FilterEntry]:
    """A plugin that attaches so many filters, or none at all."""
    attach = attaching(*(Copying() for _ in range(count)))
    return [entry(Plugin("it", [], connect=attach))] if count else []


async def test_bytes_pass_both_ways_and_the_record_counts_them(make_rig: MakeRig) -> None:
    rig = make_rig()
    talk = await rig.converse()
    await talk.both_ways(b"hello")
    await talk.end()
    record = await rig.record()
    assert (record.action, record.reason, record.rule) == ("allow", "rule_allow", "local")
    assert (record.end, record.ended_by) == ("closed", "internal")
    assert (record.bytes_sent, record.bytes_received) == (5, 5)
    assert (record.entry, record.client_port, record.port) == ("socks5", 4242, rig.server.port)
    assert record.address == "127.0.0.1"
    assert record.connect_us is not None
    assert record.filters is None


async def test_what_policy_refuses_no_filter_sees_and_nothing_is_dialled(make_rig: MakeRig) -> None:
    heard: list[tuple[str, str]] = []
    rig = make_rig(entry(Plugin("it", heard)), rules=[Rule("no", Action.DENY)])
    connection = await rig.connect()
    assert connection.refusal is not None
    assert (connection.refusal.action, connection.refusal.reason) == ("deny", "rule_deny")
    record = await rig.record()
    assert (record.action, record.reason, record.rule, record.end) == ("deny", "rule_deny", "no", "refused")
    assert heard == []
    assert rig.server.nobody_came()


async def test_a_server_that_nobody_runs_is_a_failure_with_its_reason(make_rig: MakeRig) -> None:
    rig = make_rig()
    rig.server.close()
    connection = await rig.connect()
    assert connection.refusal is not None
    assert (connection.refusal.action, connection.refusal.reason) == ("fail", "connection_refused")
    record = await rig.record()
    assert (record.action, record.reason, record.rule) == ("fail", "connection_refused", "local")


async def test_a_name_without_address_is_a_failure_with_its_reason(make_rig: MakeRig) -> None:
    def lookup(name: str) -> tuple[ipaddress.IPv4Address, ...]:
        raise NameNotFound("no such name")

    rig = make_rig(lookup=lookup)
    connection = await rig.connect(target_of("nowhere.test", 80))
    assert connection.refusal is not None
    assert connection.refusal.reason == "name_not_found"
    assert (await rig.record()).host == "nowhere.test"


async def test_the_record_names_the_rule_that_allowed_the_address_that_answered(make_rig: MakeRig) -> None:
    rules = [
        Rule("first", Action.ALLOW, to_networks=(ipaddress.ip_network("127.0.0.2/32"),)),
        Rule("second", Action.ALLOW, to_networks=(ipaddress.ip_network("127.0.0.1/32"),)),
    ]
    addresses = ipaddress.IPv4Address("127.0.0.2"), ipaddress.IPv4Address("127.0.0.1")
    rig = make_rig(rules=rules, lookup=lambda _: addresses)  # the server listens on the second one alone
    connection = await rig.connect(target_of("two.test", rig.server.port))
    assert connection.refusal is None
    assert connection.external_peer_name == ("127.0.0.1", rig.server.port)
    assert connection.decision.rule == "second"
    rig.engine.kill(connection)
    record = await rig.record()
    assert (record.rule, record.address) == ("second", "127.0.0.1")


async def test_only_allowed_addresses_of_a_name_are_dialled(make_rig: MakeRig) -> None:
    rules = [Rule("only", Action.ALLOW, to_networks=(ipaddress.ip_network("127.0.0.3/32"),))]
    addresses = ipaddress.IPv4Address("127.0.0.1"), ipaddress.IPv4Address("127.0.0.3")
    rig = make_rig(rules=rules, lookup=lambda _: addresses)
    connection = await rig.connect(target_of("two.test", rig.server.port))
    assert connection.refusal is not None
    assert connection.refusal.reason == "connection_refused"
    assert rig.server.nobody_came()


async def test_while_records_cannot_be_written_new_connections_are_refused(make_rig: MakeRig) -> None:
    rig = make_rig()
    rig.recorder.trouble = "the disk is full"
    connection = await rig.connect()
    assert connection.refusal is not None
    assert (connection.refusal.reason, connection.refusal.detail) == ("log_unavailable", "the disk is full")
    rig.recorder.trouble = None
    assert (await rig.connect()).refusal is None


async def test_a_client_that_goes_away_while_it_is_judged_leaves_one_record(make_rig: MakeRig) -> None:
    asked = asyncio.Event()
    heard: list[tuple[str, str]] = []

    async def wait(_: object) -> None:
        asked.set()
        await asyncio.Event().wait()

    rig = make_rig(entry(Plugin("it", heard, connect=wait)))
    connecting = rig.start(_connect(rig))
    await asked.wait()
    connecting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await connecting
    record = await rig.record()
    assert (record.action, record.reason) == ("fail", "terminating")
    assert heard == [("it", "connect"), ("it", "terminating")]


async def _connect(rig: Rig) -> None:
    await rig.connect()


@pytest.mark.parametrize("moment", ["resolving", "connect", "established"])
async def test_a_kill_before_anything_is_carried_is_on_record_once(make_rig: MakeRig, moment: str) -> None:
    def lookup(name: str) -> tuple[ipaddress.IPv4Address, ...]:
        if moment == "resolving":
            loop.call_soon_threadsafe(kill)
            done.result()  # the answer comes after the kill
        return (ipaddress.IPv4Address("127.0.0.1"),)

    def kill() -> None:
        for connection in list(rig.engine.connections.values()):
            rig.engine.kill(connection, "shutdown")
        if not done.done():
            done.set_result(None)

    async def handle(event: object) -> None:
        if moment != "resolving":
            kill()

    import concurrent.futures

    done: concurrent.futures.Future[None] = concurrent.futures.Future()
    loop = asyncio.get_running_loop()
    plugin = Plugin("it", [], **{} if moment == "resolving" else {moment: handle})
    other = Plugin("other", plugin.heard)
    rig = make_rig(entry(plugin), entry(other), lookup=lookup)
    connection = await rig.connect(target_of("slow.test", rig.server.port))
    assert connection.refusal is not None
    record = await rig.record()
    assert (record.end, record.ended_by) == ("shutdown", "ours")
    if moment == "established":
        assert record.action == "allow"
    else:
        assert (record.action, record.reason) == ("fail", "shutdown")
        assert rig.server.nobody_came()
    hears = {"resolving": [], "connect": ["connect"], "established": ["connect", "connect", "established"]}
    assert [kind for _, kind in plugin.heard if kind != "terminating"] == hears[moment]


@pytest.mark.parametrize("filters", [0, 1, 2])
async def test_killing_resets_both_sides_in_the_relay_and_in_a_chain(make_rig: MakeRig, filters: int) -> None:
    rig = make_rig(*copiers(filters))
    talk = await rig.converse()
    await talk.both_ways(b"x" * 10)
    talk.connection.kill()
    talk.connection.kill()
    assert await talk.client.is_reset()
    assert await talk.server.is_reset()
    record = await rig.record()
    assert (record.end, record.ended_by) == ("killed", "ours")
    assert (record.bytes_sent, record.bytes_received) == (10, 10)


async def test_a_kill_ends_a_filter_whatever_it_waits_for(make_rig: MakeRig) -> None:
    waits, ended = asyncio.Event(), asyncio.Event()

    async def pump(internal: Socket, external: Socket, connection: Connection) -> None:
        waits.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    rig = make_rig(entry(Plugin("it", [], connect=attaching(Pumping(pump)))))
    talk = await rig.converse()
    await waits.wait()
    talk.connection.kill()
    await talk.carried
    assert ended.is_set()
    assert await talk.client.is_reset()
    assert (await rig.record()).end == "killed"


async def test_what_a_filter_raises_because_its_connection_ended_is_no_failure(make_rig: MakeRig) -> None:
    async def pump(internal: Socket, external: Socket, connection: Connection) -> None:
        try:
            await internal.recv()
        except Terminating as error:
            raise ValueError("mine") from error

    rig = make_rig(entry(Plugin("it", [], connect=attaching(Pumping(pump)))))
    talk = await rig.converse()
    await wait_for(lambda: talk.connection.internal is not None and talk.connection.internal.busy, "it reads")
    talk.connection.kill()
    await talk.carried
    record = await rig.record()
    assert (record.action, record.end) == ("allow", "killed")
    assert record.filters == '[["it","attached",""]]'
    assert rig.failures == []


async def test_a_filter_may_kill_its_own_connection(make_rig: MakeRig) -> None:
    async def pump(internal: Socket, external: Socket, connection: Connection) -> None:
        await internal.recv()
        connection.kill()
        await external.send(b"never")

    rig = make_rig(entry(Plugin("it", [], connect=attaching(Pumping(pump)))))
    talk = await rig.converse()
    await talk.client.send(b"x")
    assert await talk.client.is_reset()
    assert await talk.server.is_reset()
    record = await rig.record()
    assert (record.action, record.end) == ("allow", "killed")
    assert rig.failures == []


@pytest.mark.parametrize("filters", [0, 1, 2])
@pytest.mark.parametrize("who", ["internal", "external"])
async def test_a_reset_travels_as_a_reset_and_is_on_record_with_its_side(
    make_rig: MakeRig, who: str, filters: int
) -> None:
    rig = make_rig(*copiers(filters))
    talk = await rig.converse()
    await talk.both_ways(b"x")
    one, other = (talk.client, talk.server) if who == "internal" else (talk.server, talk.client)
    one.reset()
    assert await other.is_reset()
    record = await rig.record()
    assert (record.end, record.ended_by) == ("reset", who)


@pytest.mark.parametrize("filters", [0, 1, 2])
async def test_silence_for_too_long_ends_a_connection(make_rig: MakeRig, filters: int) -> None:
    rig = make_rig(*copiers(filters), limits=Limits(idle_timeout_s=0.1))
    talk = await rig.converse()
    assert await talk.client.is_reset()
    assert await talk.server.is_reset()
    assert (await rig.record()).end == "idle_timeout"


async def test_who_waits_for_what_was_promised_in_its_name_may_be_silent(make_rig: MakeRig) -> None:
    rig = make_rig(*copiers(1), limits=Limits(idle_timeout_s=0.1))
    control = await rig.converse()
    connection = control.connection
    address, port = connection.external_peer_name
    connection.session.allow_connect(address, port, parent=connection)
    data = await rig.converse()
    assert data.connection.is_secondary
    loop = asyncio.get_running_loop()
    until_s = loop.time() + 0.4
    while loop.time() < until_s:
        await data.both_ways(b"a file")
    assert connection.end is None
    assert await control.client.is_reset()
    assert {record.end for record in rig.recorder.records} == {"idle_timeout"}


@pytest.mark.parametrize("filters", [0, 1, 2])
async def test_bytes_that_a_front_end_read_too_early_come_first(make_rig: MakeRig, filters: int) -> None:
    attach = attaching(*(Leaving(0) for _ in range(filters)))
    rig = make_rig(entry(Plugin("it", [], connect=attach)))
    connection = await rig.connect()
    server = await rig.server.accept()
    client, leg = rig.client()
    leg.put_back(b"early ")
    await client.send(b"late")
    await rig.engine.carry(connection, leg)
    assert await server.exactly(10) == b"early late"
    server.close()


async def test_a_front_end_that_speaks_for_the_client_is_served_in_memory_to_the_end(
    make_rig: MakeRig,
) -> None:
    rig = make_rig(entry(Plugin("it", [], connect=attaching(Leaving(1), Leaning(1)))))
    connection = await rig.connect()
    server = await rig.server.accept()
    near, far = joint()
    carried = rig.start(rig.engine.carry(connection, far))
    await near.send(b"request")
    assert await server.exactly(7) == b"request"
    await server.send(b"answer")
    assert await near.recv() == b"answer"
    await near.shutdown()
    assert await server.rest() == b""
    await server.send(b"late")
    server.close()
    assert [await near.recv(), await near.recv()] == [b"late", b""]
    await carried
    record = await rig.record()
    assert (record.end, record.bytes_sent, record.bytes_received) == ("closed", 7, 10)


async def test_a_front_end_in_memory_is_told_why_a_filter_refused(make_rig: MakeRig) -> None:
    async def pump(internal: Socket, external: Socket, connection: Connection) -> None:
        raise Refuse("not_today")

    rig = make_rig(entry(Plugin("it", [], connect=attaching(Pumping(pump)))))
    connection = await rig.connect()
    near, far = joint()
    carried = rig.start(rig.engine.carry(connection, far))
    with pytest.raises(Refuse) as refused:
        await near.recv()
    assert refused.value.reason == "not_today"
    await carried


async def test_a_front_end_may_end_a_connection_that_it_carried_itself(make_rig: MakeRig) -> None:
    rig = make_rig()
    connection = await rig.connect()
    server = await rig.server.accept()
    assert connection.external is not None
    await connection.external.send(b"request")
    rig.engine.ended(connection, End("closed", "external"))
    rig.engine.ended(connection, End("reset", "internal"))
    assert await server.rest() == b"request"
    server.close()
    record = await rig.record()
    assert (record.end, record.ended_by, record.bytes_sent) == ("closed", "external", 7)


async def test_a_relay_that_cannot_take_a_pair_ends_the_connection_with_its_reason(make_rig: MakeRig) -> None:
    class FullRelay(PythonRelay):
        def add(self, internal_fd: int, external_fd: int, *_: object, **__: object) -> int:
            os.close(internal_fd)
            os.close(external_fd)
            raise OutOfResources("no more descriptors to watch", side=Side.OURS)

    rig = make_rig(entry(Plugin("it", [], connect=attaching(Leaving(2)))))
    rig.engine.relay = FullRelay(rig.poller, rig.engine.completed)
    talk = await rig.converse()
    await talk.both_ways(b"five5")
    await talk.carried
    record = await rig.record()
    assert (record.end, record.ended_by) == ("out_of_resources", "ours")
    assert (record.bytes_sent, record.bytes_received) == (5, 5)


async def test_carrying_a_connection_that_has_ended_resets_the_client(make_rig: MakeRig) -> None:
    rig = make_rig()
    connection = await rig.connect()
    connection.kill()
    client, leg = rig.client()
    await rig.engine.carry(connection, leg)
    assert await client.is_reset()
    assert (await rig.record()).end == "killed"


@pytest.mark.parametrize("filters", [1, 3])
async def test_a_cancelled_carrier_ends_its_connection(make_rig: MakeRig, filters: int) -> None:
    rig = make_rig(*copiers(filters))
    talk = await rig.converse()
    await talk.both_ways(b"x")
    talk.carried.cancel()
    assert await talk.client.is_reset()
    assert await talk.server.is_reset()
    record = await rig.record()
    assert (record.end, record.ended_by) == ("killed", "ours")
