"""Binds that a filter emulates: no socket, and the peers that it hands over are the client's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.engine.rig import Plugin, Rig, wait_for
from tests.engine.visits import CLIENT, RULES, Visits, hearing

from doorward.api import (
    AlreadyEmulated,
    AlreadyExists,
    BadContext,
    ConnectionFlags,
    DataFilter,
    NotEmulated,
    Terminating,
)
from doorward.api.ip_filter import IpFilter
from doorward.engine.connection import Connection

pytestmark = pytest.mark.anyio

MakeRig = Callable[..., Rig]
SERVER = IpFilter(CLIENT)
REMOTE, LOCAL = ("198.51.100.7", 4711), ("192.0.2.1", 8080)


class Greeting(DataFilter):
    """A server: says who it is, and repeats what it hears until the end."""

    def __init__(self) -> None:
        self.started = False

    async def pump(self, internal: Any, external: None, connection: Any) -> None:
        self.started = True
        assert external is None
        await internal.send(b"welcome")
        while data := await internal.recv():
            await internal.send(data)
            connection.increment_bytes_sent(len(data))


class Emulator:
    """A plugin that claims every bind, and remembers it."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, str]] = []
        self.listening: Connection | None = None
        self.plugin = Plugin("emulator", self.heard, bind=self._bind)

    async def _bind(self, event: Any) -> None:
        event.connection.emulate_for_bind()
        event.connection.set_socket_name(LOCAL)
        self.listening = event.connection


async def test_an_emulated_bind_has_no_socket_and_hands_its_peer_to_the_client(make_rig: MakeRig) -> None:
    emulator = Emulator()
    heard: list[tuple[str, str]] = []
    rig = make_rig(hearing(emulator.plugin), hearing(Plugin("other", heard)), rules=RULES)
    here = Visits(rig)
    listening, port = await here.open(None, port=LOCAL[1])
    assert listening.external_socket_name == LOCAL
    assert ConnectionFlags.EMULATED in listening.flags
    with pytest.raises(BadContext):
        listening.set_ip_filter(SERVER)
    greeting = Greeting()
    arrived = listening.emulate_connection(greeting, REMOTE, LOCAL)
    client = await here.came()
    assert await client.exactly(7) == b"welcome"
    await client.send(b"hello")
    assert await client.exactly(5) == b"hello"
    assert (arrived.external_peer_name, arrived.external_socket_name) == (REMOTE, LOCAL)
    assert ConnectionFlags.EMULATED in arrived.flags
    assert port.closed
    with pytest.raises((AlreadyExists, Terminating)):
        listening.emulate_connection(Greeting(), REMOTE, LOCAL)
    client.end()
    assert await client.rest() == b""
    record = await here.record_of("accept")
    assert (record.address, record.port, record.end) == (*REMOTE, "closed")
    assert (record.bytes_sent, record.bytes_received) == (5, 12)
    assert [kind for _, kind in heard] == ["bind", "listen", "accept", "terminating", "terminating"]
    assert ("emulator", "accept") not in emulator.heard


async def test_another_filter_denies_the_peer_and_the_emulator_hears_of_its_end(make_rig: MakeRig) -> None:
    async def deny(event: Any) -> None:
        event.connection.deny("unwelcome")

    emulator = Emulator()
    rig = make_rig(hearing(emulator.plugin), hearing(Plugin("other", [], accept=deny)), rules=RULES)
    here = Visits(rig)
    listening, _ = await here.open(None)
    greeting = Greeting()
    listening.emulate_connection(greeting, REMOTE, LOCAL)
    with pytest.raises(AlreadyExists):  # while this one may still pass
        listening.emulate_connection(Greeting(), REMOTE, LOCAL)
    assert (await here.record_of("accept")).reason == "unwelcome"
    await wait_for(lambda: len(emulator.plugin.ends) == 1, "the emulator hears of it")
    assert not greeting.started
    rig.engine.ruling = rig.ruling([], RULES)
    listening.emulate_connection(Greeting(), REMOTE, LOCAL)  # that one has not used it up
    await here.came()


async def test_a_filter_that_claims_a_bind_and_gives_it_no_name_fails(make_rig: MakeRig) -> None:
    async def claim(event: Any) -> None:
        event.connection.emulate_for_bind()

    rig = make_rig(hearing(Plugin("it", [], bind=claim)), rules=RULES)
    connection, port = await Visits(rig).asked(None)
    assert port is None
    assert connection.refusal is not None
    assert connection.refusal.reason == "filter_failed"
    assert rig.failures


async def test_a_bind_is_claimed_once(make_rig: MakeRig) -> None:
    met: list[Exception] = []

    async def claim_too(event: Any) -> None:
        for call in (event.connection.emulate_for_bind, lambda: event.connection.set_socket_name(LOCAL)):
            try:
                call()
            except (AlreadyEmulated, AlreadyExists) as error:
                met.append(error)

    emulator = Emulator()
    rig = make_rig(hearing(emulator.plugin), hearing(Plugin("late", [], bind=claim_too)), rules=RULES)
    listening, _ = await Visits(rig).open(None)
    assert [type(error) for error in met] == [AlreadyEmulated, AlreadyExists]
    listening.kill()
    with pytest.raises(Terminating):
        listening.emulate_connection(Greeting(), REMOTE, LOCAL)


async def test_a_filter_that_claims_and_then_fails_is_not_gone_on_without(make_rig: MakeRig) -> None:
    async def fail(event: Any) -> None:
        event.connection.emulate_for_bind()
        event.connection.set_socket_name(LOCAL)
        raise RuntimeError("oh")

    rig = make_rig(hearing(Plugin("it", [], bind=fail), fail="open"), rules=RULES)
    connection, _ = await Visits(rig).asked(None)
    assert connection.refusal is not None
    assert connection.refusal.reason == "filter_failed"


async def test_a_peer_that_is_handed_over_at_once_waits_for_the_bind_to_stand(make_rig: MakeRig) -> None:
    handed: list[Connection] = []
    denies = False

    async def hand_over(event: Any) -> None:
        event.connection.emulate_for_bind()
        event.connection.set_socket_name(LOCAL)
        handed.append(event.connection.emulate_connection(Greeting(), REMOTE, LOCAL))
        with pytest.raises(AlreadyExists):
            event.connection.emulate_connection(Greeting(), REMOTE, LOCAL)

    async def deny(event: Any) -> None:
        if denies:
            event.connection.deny()

    entries = [hearing(Plugin("it", [], bind=hand_over)), hearing(Plugin("other", [], bind=deny))]
    rig = make_rig(*entries, rules=RULES)
    here = Visits(rig)
    await here.open(None)
    assert await (await here.came()).exactly(7) == b"welcome"
    denies = True
    await here.asked(None)
    await here.record_of("accept")
    assert handed[1].end is not None  # with the bind that was denied
    assert len(here.clients) == 1


async def test_no_peer_can_be_handed_over_before_the_bind_has_a_name_or_to_one_that_is_real(
    make_rig: MakeRig,
) -> None:
    met: list[Exception] = []

    async def hasty(event: Any) -> None:
        event.connection.emulate_for_bind()
        try:
            event.connection.emulate_connection(Greeting(), REMOTE, LOCAL)
        except BadContext as error:
            met.append(error)
        event.connection.set_socket_name(LOCAL)

    rig = make_rig(hearing(Plugin("it", [], bind=hasty)), rules=RULES)
    await Visits(rig).open(None)
    assert len(met) == 1
    rig.engine.ruling = rig.ruling([], RULES)
    listening, _ = await Visits(rig).open()
    with pytest.raises(NotEmulated):
        listening.emulate_connection(Greeting(), REMOTE, LOCAL)


async def test_a_client_that_never_bound_gets_peers_all_the_same(make_rig: MakeRig) -> None:
    rig = make_rig()
    here, server = Visits(rig), rig.another_server()
    listening = await here.session.emulate_client_bind((CLIENT, server.port), LOCAL)
    assert listening.external_socket_name == LOCAL
    for _ in range(2):
        listening.emulate_connection(Greeting(), REMOTE, LOCAL)
        client = rig.keep(await server.accept())
        assert await client.exactly(7) == b"welcome"
        client.end()
        assert await client.rest() == b""
    record = await here.record_of("accept", 2)
    assert (record.reason, record.filters) == ("granted", None)
    listening.kill()
    bound = await here.record_of("bind")
    assert (bound.reason, bound.port, bound.end) == ("granted", LOCAL[1], "killed")


async def test_a_filter_that_cannot_reach_the_client_is_told_by_the_end(make_rig: MakeRig) -> None:
    rig = make_rig()
    here, server = Visits(rig), rig.another_server()
    listening = await here.session.emulate_client_bind((CLIENT, server.port), LOCAL)
    server.close()
    greeting = Greeting()
    listening.emulate_connection(greeting, REMOTE, LOCAL)
    assert (await here.record_of("accept")).reason == "connection_refused"
    assert not greeting.started
