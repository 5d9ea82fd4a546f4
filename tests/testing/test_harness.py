"""The harness runs filters as the engine does, and tells what came of it."""

from __future__ import annotations

import asyncio

import pytest
from tests.testing.conftest import MakeHarness
from tests.testing.plugins import Echo, Plugin

from doorward.api import (
    ApplicationFilter,
    BadContext,
    ConnectEvent,
    Connection,
    DataFilter,
    Priority,
    Refuse,
    Session,
    SessionFilter,
    Socket,
    StreamFilter,
)
from doorward.testing import (
    Asked,
    ConversationBroken,
    Do,
    End,
    Expect,
    ExpectEnd,
    ExpectReset,
    FilterHarness,
    Send,
)

pytestmark = pytest.mark.anyio


class Shout(StreamFilter):
    """Upper case toward the server, lower case back."""

    def client_data(self, data: bytes) -> bytes:
        return data.upper()

    def server_data(self, data: bytes) -> bytes:
        return data.lower()


class FirstLine(DataFilter):
    """Looks at the first line, refuses a bad one, and lets the rest be."""

    async def pump(self, internal: Socket, external: Socket, connection: Connection) -> None:
        line = b""
        while not line.endswith(b"\n"):
            data = await internal.recv(1)
            if not data:
                break
            line += data
        if line.startswith(b"bad"):
            raise Refuse("bad_line")
        await external.send(line)


class Broken(DataFilter):
    """Raises at the first byte."""

    async def pump(self, internal: Socket, external: Socket, connection: Connection) -> None:
        await internal.recv()
        raise ZeroDivisionError("mine")


async def test_each_side_receives_what_the_filter_let_through() -> None:
    outcome = await FilterHarness().run(
        Shout(), client=[Send(b"Hi"), Expect(b"ho")], server=[Expect(b"HI"), Send(b"HO")]
    )
    assert (outcome.client_received, outcome.server_received) == (b"ho", b"HI")
    assert (outcome.end, outcome.verdict, outcome.filter, outcome.error) == ("closed", None, None, None)


async def test_chunks_are_cut_as_the_script_cuts_them_and_what_comes_after_the_filter_passes() -> None:
    outcome = await FilterHarness().run(
        FirstLine(),
        client=[Send(b"go"), Send(b"od\nrest"), Send(b" of it"), End(), ExpectEnd()],
        server=[Expect(b"good\n"), Expect(b"rest of it"), ExpectEnd()],
    )
    assert outcome.end == "closed"


async def test_a_refusal_is_a_reset_for_both_and_a_verdict_for_the_test() -> None:
    outcome = await FilterHarness().run(
        FirstLine(), Shout(), client=[Send(b"bad\n"), ExpectReset()], server=[ExpectReset()]
    )
    assert (outcome.end, outcome.verdict, outcome.filter) == ("bad_line", "denied", "FirstLine")
    assert isinstance(outcome.error, Refuse)
    assert outcome.server_received == b""


async def test_a_filter_that_raises_is_told_with_its_error() -> None:
    outcome = await FilterHarness().run(Broken(), client=[Send(b"x")])
    assert (outcome.end, outcome.verdict, outcome.filter) == ("filter_failed", "failed", "Broken")
    assert isinstance(outcome.error, ZeroDivisionError)


async def test_several_filters_stand_by_priority() -> None:
    class Mark(StreamFilter):
        def __init__(self, letter: bytes, priority: Priority) -> None:
            self.letter = letter
            self.priority = priority  # type: ignore[misc]  # each its own

        def client_data(self, data: bytes) -> bytes:
            return data + self.letter

    outcome = await FilterHarness().run(
        Mark(b"2", Priority.EXTERNAL), Mark(b"1", Priority.NAT), client=[Send(b"x")]
    )
    assert outcome.server_received == b"x12"


async def test_a_peer_that_is_disappointed_says_so() -> None:
    with pytest.raises(ConversationBroken, match="the server is at line 1"):
        await FilterHarness().run(Shout(), client=[Send(b"hi")], server=[Expect(b"hi")])


async def test_a_conversation_in_which_nothing_moves_says_who_waits_for_what() -> None:
    class Silent(DataFilter):
        async def pump(self, internal: Socket, external: Socket, connection: Connection) -> None:
            await asyncio.Event().wait()

    with pytest.raises(ConversationBroken, match="the server is at line 1: Expect") as broken:
        await FilterHarness(timeout_s=0.05).run(Silent(), client=[Send(b"x")], server=[Expect(b"x")])
    assert "the client is at the end of its script" in str(broken.value)


async def test_a_filter_sees_a_connection_with_the_harnesss_names() -> None:
    class Look(DataFilter):
        async def pump(self, internal: Socket, external: Socket, connection: Connection) -> None:
            assert (connection.host, connection.port, connection.protocol) == ("a.test", 25, "smtp")
            assert connection.external_peer_name == ("2001:db8::1", 25)
            assert (connection.session.user, connection.session.groups) == ("kim", frozenset({"staff"}))
            assert connection.decision.reason == "rule_allow"
            with pytest.raises(BadContext):
                connection.deny()
            with pytest.raises(BadContext):
                connection.attach_data_filter(Look())

    harness = FilterHarness(
        host="a.test",
        address="2001:db8::1",
        port=25,
        protocol="smtp",
        user="kim",
        groups=frozenset({"staff"}),
    )
    assert (await harness.run(Look())).end == "closed"


async def test_a_kill_is_a_reset_for_both() -> None:
    class Kill(DataFilter):
        async def pump(self, internal: Socket, external: Socket, connection: Connection) -> None:
            connection.kill()
            await internal.recv()

    outcome = await FilterHarness().run(Kill(), client=[ExpectReset()], server=[ExpectReset()])
    assert (outcome.end, outcome.verdict) == ("killed", None)


class Gate(ApplicationFilter):
    """Denies one name, and attaches to the others."""

    def session_filter(self, session: Session) -> SessionFilter:
        return _Gate()


class _Gate(SessionFilter):
    async def on_connect(self, event: ConnectEvent) -> None:
        if event.host == "bad.test":
            event.connection.deny("bad_name")
            return
        event.connection.attach_data_filter(Shout(), Priority.EXTERNAL, context="late")
        event.connection.attach_data_filter(FirstLine(), context="early")


async def test_an_application_filter_is_asked_and_what_it_attaches_can_be_run() -> None:
    denied = await FilterHarness(host="bad.test").ask(Gate())
    assert denied == Asked(denied="bad_name")
    harness = FilterHarness(host="good.test")
    asked = await harness.ask(Gate())
    assert asked.denied is None
    assert [(type(f), f.context) for f in asked.attached] == [(FirstLine, "early"), (Shout, "late")]
    outcome = await harness.run(*asked.attached, client=[Send(b"hi\n")], server=[Expect(b"HI\n")])
    assert outcome.end == "closed"


async def test_nothing_is_left_running() -> None:
    before = asyncio.all_tasks()
    with pytest.raises(ConversationBroken):
        await FilterHarness().run(Broken(), client=[Send(b"x"), Expect(b"y")], server=[])
    assert asyncio.all_tasks() == before


async def test_an_emulator_is_the_server(make_harness: MakeHarness) -> None:
    harness = make_harness()
    outcome = await harness.run(Shout(), emulator=Echo(), client=[Send(b"Hi"), Expect(b"hi")])
    assert (outcome.client_received, outcome.server_received, outcome.end) == (b"hi", b"", "closed")


async def test_what_was_asked_about_is_run_on_the_same_connection(make_harness: MakeHarness) -> None:
    def connect(event: ConnectEvent) -> None:
        event.connection.attach_data_filter(Shout())
        event.connection.emulate_for_connect(Echo())

    harness = make_harness()
    asked = await harness.ask(Plugin(connect=connect))
    outcome = await harness.run(connection=asked.connection, client=[Send(b"Hi"), Expect(b"hi")])
    assert outcome.end == "closed"
    assert (asked.connection.bytes_sent, asked.connection.bytes_received) == (2, 2)


async def test_a_script_may_do_something_in_between(make_harness: MakeHarness) -> None:
    done: list[str] = []

    async def later() -> None:
        done.append("later")

    await make_harness().run(
        Shout(), client=[Send(b"a"), Do(lambda: done.append("now")), Do(later)], server=[Expect(b"A")]
    )
    assert done == ["now", "later"]


async def test_what_a_script_does_and_fails_at_reaches_the_test(make_harness: MakeHarness) -> None:
    def fail() -> None:
        raise AssertionError("not so")

    with pytest.raises(AssertionError, match="not so"):
        await make_harness().run(Shout(), client=[Do(fail)])


async def test_a_connection_that_a_filter_forgot_ends_with_the_conversation(
    make_harness: MakeHarness,
) -> None:
    harness = make_harness(timeout_s=0.05)

    class Stuck(DataFilter):
        async def pump(self, internal: Socket, external: Socket, connection: Connection) -> None:
            connection.session.allow_connect("198.51.100.1", 50000, parent=connection, timeout_s=None)
            await asyncio.Event().wait()

    with pytest.raises(ConversationBroken):
        await harness.run(Stuck())
    assert [given.active for given in harness.grants] == [False]


async def test_a_conversation_that_failed_leaves_no_trace_in_the_next_question(
    make_harness: MakeHarness,
) -> None:
    harness = make_harness()
    assert (await harness.run(Broken(), client=[Send(b"x")])).verdict == "failed"
    assert (await harness.ask(Plugin())).denied is None
    assert (await harness.run(Shout())).error is None
