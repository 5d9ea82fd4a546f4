"""The engine under a harness: no wire, no policy, no record, and the same whatever machine it runs on."""

from __future__ import annotations

import asyncio

import pytest
from tests.testing.conftest import MakeHarness
from tests.testing.plugins import Plugin

from doorward.api import BadArgument, Connection, ConnectionRefused, SessionFilter
from doorward.testing.ground import Ground

pytestmark = pytest.mark.anyio


async def test_nothing_is_opened_to_the_world(anyio_backend: str) -> None:
    ground = Ground({}, lambda *_: True, 5.0)
    with pytest.raises(AssertionError, match="no wires"):
        ground.poller.watch(0, asyncio)  # type: ignore[arg-type]  # whatever it is
    with pytest.raises(ConnectionRefused):
        ground.dial("127.0.0.1", 22)
    with pytest.raises(BadArgument):
        ground.serve("not a name", 80)


async def test_servers_answer_once_each_and_in_order(anyio_backend: str) -> None:
    ground = Ground({}, lambda *_: True, 5.0)
    first, second = ground.serve("A.test", 80), ground.serve("a.test", 80)
    await ground.dial("a.test", 80).send(b"1")
    await ground.dial("a.TEST", 80).send(b"2")
    assert (await first.recv(), await second.recv()) == (b"1", b"2")
    with pytest.raises(ConnectionRefused):
        ground.dial("a.test", 80)


async def test_every_contract_is_fulfilled_by_what_filters_are_given(make_harness: MakeHarness) -> None:
    asked = await make_harness().ask(Plugin())
    connection: Connection = asked.connection  # mypy holds it to the contract
    assert connection.decision.rule == "a rule of the test"
    assert connection.session.client_address == "192.0.2.7"


async def test_a_filter_that_does_not_call_its_base_class_has_no_settings(make_harness: MakeHarness) -> None:
    class Bare(Plugin):
        def __init__(self) -> None:
            self.handlers, self.heard, self.events, self.made = {}, [], [], []

        def session_filter(self, session: object) -> SessionFilter:
            return SessionFilter()

    assert (await make_harness().ask(Bare())).denied is None


async def test_a_second_failure_is_not_lost_to_the_next_question(make_harness: MakeHarness) -> None:
    def terminating(event: object) -> None:
        raise ZeroDivisionError("mine")

    harness, failing, fine = make_harness(), Plugin(terminating=terminating), Plugin()
    with pytest.raises(ZeroDivisionError):
        await harness.terminating(failing)
    await harness.terminating(fine)
    assert fine.heard == ["terminating"]
