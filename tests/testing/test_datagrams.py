"""Datagrams through UDP data filters, as a script."""

from __future__ import annotations

import asyncio

import pytest
from tests.testing.conftest import MakeHarness
from tests.testing.plugins import Upper

from doorward.api import Connection, DataFilter, Refuse, Socket
from doorward.testing import ConversationBroken, FromClient, FromServer, ToClient, ToServer

pytestmark = pytest.mark.anyio

SERVER = ("192.0.2.1", 80)
OTHER = ("198.51.100.9", 53)


class Guess(DataFilter):
    """Answers `ping` itself, drops `bad`, refuses `worse`, and lets the rest pass after `enough`."""

    async def pump(self, internal: Socket, external: Socket, connection: Connection) -> None:
        while True:
            data, name = await internal.recv_from()
            if data == b"ping":
                await internal.send_to(b"pong", name)
            elif data == b"worse":
                connection.note("was_worse", "guess")
                raise Refuse("worse_datagram")
            elif data != b"bad":
                await external.send_to(data, name)
            if data == b"enough":
                return


async def test_a_conversation_goes_as_written(make_harness: MakeHarness) -> None:
    outcome = await make_harness().run_datagrams(
        Guess(),
        Upper(),
        script=[
            FromClient(b"ping"),
            ToClient(b"pong"),
            FromClient(b"bad"),
            FromClient(b"good", OTHER),
            ToServer(b"GOOD", OTHER),
            FromServer(b"unseen"),
        ],
    )
    assert outcome.to_server == ((b"GOOD", OTHER),)
    assert outcome.to_client == ((b"pong", SERVER),)
    assert (outcome.end, outcome.verdict) == ("open", None)


async def test_who_has_returned_is_passed_by(make_harness: MakeHarness) -> None:
    outcome = await make_harness().run_datagrams(
        Guess(),
        script=[FromClient(b"enough"), ToServer(b"enough"), FromClient(b"bad"), ToServer(b"bad")],
    )
    assert outcome.end == "passed"


async def test_a_refusal_is_a_verdict(make_harness: MakeHarness) -> None:
    outcome = await make_harness().run_datagrams(Guess(), script=[FromClient(b"worse")])
    assert (outcome.end, outcome.verdict, outcome.filter) == ("worse_datagram", "denied", "Guess")
    assert isinstance(outcome.error, Refuse)
    assert outcome.notes == ("was_worse",)


async def test_a_filter_that_raises_is_told(make_harness: MakeHarness) -> None:
    class Raises(DataFilter):
        async def pump(self, internal: Socket, external: Socket, connection: Connection) -> None:
            await internal.recv()
            raise ZeroDivisionError("mine")

    outcome = await make_harness().run_datagrams(Raises(), script=[FromClient(b"x")])
    assert (outcome.end, outcome.verdict) == ("filter_failed", "failed")
    assert isinstance(outcome.error, ZeroDivisionError)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (ToServer(b"other"), "the server is at line 2.*something else"),
        (ToServer(b"X", OTHER), "the server is at line 2.*something else"),
        (ToClient(b"x"), "nothing moves: the client is at line 2"),
    ],
)
async def test_a_conversation_that_goes_otherwise_says_where(
    make_harness: MakeHarness, line: ToServer | ToClient, told: str
) -> None:
    with pytest.raises(ConversationBroken, match=told):
        await make_harness(timeout_s=0.02).run_datagrams(Upper(), script=[FromClient(b"x"), line])


async def test_who_waits_hears_that_a_filter_has_ended_it(make_harness: MakeHarness) -> None:
    with pytest.raises(ConversationBroken, match="it met worse_datagram"):
        await make_harness().run_datagrams(Guess(), script=[FromClient(b"worse"), ToServer(b"worse")])


async def test_nothing_is_left_of_a_filter_that_waits(make_harness: MakeHarness) -> None:
    before = asyncio.all_tasks()
    await make_harness().run_datagrams(Guess(), script=[])
    assert asyncio.all_tasks() == before
