"""What docs/filters.md shows of the kit, as it stands there."""

from __future__ import annotations

import pytest
from tests.testing.conftest import MakeHarness

from doorward.api import (
    ApplicationFilter,
    ConnectEvent,
    Connection,
    DataFilter,
    Session,
    SessionFilter,
    Socket,
    StreamFilter,
)
from doorward.filters.ftp import FtpFilter
from doorward.testing import Do, Expect, ExpectEnd, FromClient, Given, Send, ToServer

pytestmark = pytest.mark.anyio


class Clock(ApplicationFilter):
    def session_filter(self, session: Session) -> SessionFilter:
        return _Clock()


class _Clock(SessionFilter):
    async def on_connect(self, event: ConnectEvent) -> None:
        event.connection.emulate_for_connect(TellTime())


class TellTime(DataFilter):
    async def pump(self, internal: Socket, external: None, connection: Connection) -> None:
        await internal.send(b"late\r\n")


async def test_an_emulator_takes_the_servers_place(make_harness: MakeHarness) -> None:
    harness = make_harness()
    asked = await harness.ask(Clock({}))
    outcome = await harness.run(connection=asked.connection, client=[Expect(b"late\r\n")])
    assert outcome.end == "closed"
    assert (await harness.run(emulator=TellTime(), client=[Expect(b"late\r\n")])).end == "closed"


async def test_a_promise_is_used_while_the_conversation_goes_on(make_harness: MakeHarness) -> None:
    used: list[Given] = []

    async def follow() -> None:
        [promised] = harness.grants
        assert (promised.call, promised.address, promised.port) == ("allow_connect", "198.51.100.1", 50000)
        secondary = await promised.use()
        assert secondary.external_peer_name == ("198.51.100.1", 50000)
        used.append(promised)

    passive = b"227 Entering Passive Mode (198,51,100,1,195,80).\r\n"
    harness = make_harness(address="198.51.100.1", port=21)
    asked = await harness.ask(FtpFilter())
    outcome = await harness.run(
        *asked.attached,
        client=[Expect(b"220 ready\r\n"), Send(b"PASV\r\n"), Expect(passive), Do(follow)],
        server=[Send(b"220 ready\r\n"), Expect(b"PASV\r\n"), Send(passive), ExpectEnd()],
    )
    assert outcome.end == "closed"
    assert [promised.active for promised in used] == [False]


class NoBadNames(StreamFilter):
    def client_data(self, data: bytes) -> bytes:
        return b"" if data == b"bad" else data


async def test_a_datagram_is_dropped(make_harness: MakeHarness) -> None:
    outcome = await make_harness().run_datagrams(
        NoBadNames(), script=[FromClient(b"bad"), FromClient(b"good"), ToServer(b"good")]
    )
    assert [data for data, _ in outcome.to_server] == [b"good"]
