"""Private sessions: nobody else's, and everything that goes on in one ends with it. Flags, and filters joined early."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from tests.engine.emulators import being
from tests.engine.filters import Copying
from tests.engine.rig import Plugin, Rig, attaching, entry, wait_for

from doorward.api import (
    ConnectEvent,
    Connection,
    EventKind,
    FilterFailed,
    NotFound,
    OutOfResources,
    Refuse,
    SessionFlags,
    Socket,
    Terminating,
)
from doorward.api.filters import ClientKind
from doorward.engine.association import FilterEntry
from doorward.engine.origin import Origin
from doorward.engine.session import Session, SessionTable
from doorward.policy.model import Action, Rule
from doorward.testing import Clock

pytestmark = pytest.mark.anyio

MakeRig = Callable[..., Rig]


def private(rig: Rig, user: str | None = "kim", groups: frozenset[str] = frozenset()) -> Session:
    return rig.engine.sessions.private("127.0.0.1", user, groups)


async def test_a_private_session_is_never_anybody_elses(make_rig: MakeRig) -> None:
    rig = make_rig()
    one, two = private(rig), private(rig)
    public = rig.engine.sessions.get("127.0.0.1", "kim")
    assert len({one, two, public}) == 3
    assert len({one.id, two.id, public.id}) == 3
    await rig.connect(session=one)
    assert rig.engine.sessions.get("127.0.0.1", "kim") is public
    one.close()
    assert rig.engine.sessions.get("127.0.0.1", "kim") is public
    assert [session.ended for session in (one, two, public)] == [True, False, False]


async def test_a_private_session_says_to_policy_who_its_client_is(make_rig: MakeRig) -> None:
    rig = make_rig(rules=[Rule("staff", Action.ALLOW, to_networks=None, groups=frozenset({"staff"}))])
    staff, other = private(rig, groups=frozenset({"staff"})), private(rig)
    for session, allowed in ((staff, True), (other, False)):
        decision = await session.check_access("tcp/80", "192.0.2.7")
        assert decision.allowed is allowed


def test_a_private_session_lives_until_it_is_closed_however_idle_it_is() -> None:
    clock = Clock()
    sessions = SessionTable(clock, 2, 60.0)
    private_one = sessions.private("192.0.2.1", None, frozenset())
    sessions.enter(private_one)
    sessions.leave(private_one)
    clock.advance(1_000_000)
    assert sessions.end_idle() == 0
    first = sessions.get("192.0.2.2", None)
    sessions.get("192.0.2.3", None)
    assert [first.ended, private_one.ended] == [True, False]
    sessions.remove(private_one)
    sessions.remove(private_one)
    assert len(sessions) == 1


def test_private_sessions_count_for_the_table() -> None:
    sessions = SessionTable(Clock(), 2, 60.0)
    for _ in range(2):
        sessions.private("192.0.2.1", None, frozenset())
    with pytest.raises(OutOfResources):
        sessions.private("192.0.2.1", None, frozenset())
    with pytest.raises(OutOfResources):
        sessions.get("192.0.2.2", None)


def test_flags_say_what_kind_of_session_it_is() -> None:
    sessions = SessionTable(Clock(), 9, 60.0)
    nobody, kim = sessions.get("192.0.2.1", None), sessions.get("192.0.2.1", "kim")
    own = sessions.private("192.0.2.1", "kim", frozenset())
    assert not nobody.flags
    assert kim.flags is SessionFlags.AUTHENTICATED
    assert own.flags == SessionFlags.PRIVATE | SessionFlags.AUTHENTICATED
    sessions.remove(own)
    assert own.flags == SessionFlags.PRIVATE | SessionFlags.AUTHENTICATED | SessionFlags.TERMINATED
    sessions.remove(nobody)
    assert nobody.flags is SessionFlags.TERMINATED


async def _serve(internal: Socket, connection: Connection) -> None:
    await internal.recv()


async def _connect(rig: Rig, session: Session) -> None:
    await rig.connect(session=session)


@pytest.mark.parametrize("how", ["relay", "chain", "emulated", "in a handler", "not carried yet"])
async def test_closing_a_session_resets_what_goes_on_in_it_and_nothing_else(
    make_rig: MakeRig, how: str
) -> None:
    asked = asyncio.Event()

    async def wait(_: ConnectEvent) -> None:
        asked.set()
        await asyncio.Event().wait()

    kinds: dict[str, list[FilterEntry]] = {
        "chain": [entry(Plugin("it", [], connect=attaching(Copying())))],
        "emulated": [being(_serve)],
        "in a handler": [entry(Plugin("it", [], connect=wait))],
    }
    rig = make_rig()
    untouched = await rig.converse()
    rig.engine.ruling = rig.ruling(kinds.get(how, []))
    session = private(rig)
    if how == "in a handler":
        connecting = rig.start(_connect(rig, session))
        await asked.wait()
        session.close()
        connecting.cancel()
        await asyncio.wait([connecting])
    else:
        connection = await rig.connect(session=session)
        client, leg = rig.client()
        if how == "not carried yet":
            session.close()
        carried = rig.start(rig.engine.carry(connection, leg))
        if how != "not carried yet":
            where = "relay_id" if how == "relay" else "chain_scope"
            await wait_for(lambda: getattr(connection, where) is not None, "it is carried")
        session.close()
        session.close()
        assert await client.is_reset()
        await carried
    record = await rig.record()
    assert (record.session, record.user, record.end) == (session.id, "kim", "session_ended")
    await untouched.both_ways(b"x")
    assert session.connections == 0


async def test_grants_end_with_their_session(make_rig: MakeRig) -> None:
    rig = make_rig()
    session = private(rig)
    grants = [
        session.allow_connect("192.0.2.7", 80),
        session.set_data_filter_factory(EventKind.CONNECT, Copying),
    ]
    session.close()
    assert [grant.active for grant in grants] == [False, False]
    assert rig.engine.grants.alive == 0


async def test_nothing_begins_in_a_session_that_has_ended(make_rig: MakeRig) -> None:
    rig = make_rig(entry(Plugin("it", [])))
    session = private(rig)
    session.close()
    connection = await rig.connect(session=session)
    assert connection.refusal is not None
    assert (connection.refusal.action, connection.refusal.reason) == ("fail", "terminating")
    assert rig.server.nobody_came()
    for call in (
        lambda: session.allow_connect("192.0.2.7", 80),
        lambda: session.set_data_filter_factory(EventKind.CONNECT, Copying),
        lambda: session.attach_filter("it"),
        session.create_network_socket,
    ):
        with pytest.raises(Terminating):
            call()


async def test_a_filter_may_be_joined_before_its_first_event_and_hears_nothing_of_it(
    make_rig: MakeRig,
) -> None:
    plugin = Plugin("it", [])
    rig = make_rig(entry(plugin))
    session = rig.engine.sessions.get("127.0.0.1", None)
    session.attach_filter("it")
    session.attach_filter("it")
    assert len(plugin.sessions) == 1
    assert plugin.sessions[0] is session
    assert plugin.heard == []
    await rig.connect()
    assert len(plugin.sessions) == 1
    with pytest.raises(NotFound, match="other"):
        session.attach_filter("other")


@pytest.mark.parametrize(("raised", "met"), [(ZeroDivisionError(), FilterFailed), (Refuse("no"), Refuse)])
async def test_a_filter_that_cannot_join_is_an_error_of_ours_to_who_asked(
    make_rig: MakeRig, raised: Exception, met: type[Exception]
) -> None:
    class Broken(Plugin):
        def session_filter(self, session: object) -> object:  # type: ignore[override]  # it never returns
            raise raised

    rig = make_rig(entry(Broken("it", [])))
    with pytest.raises(met):
        rig.engine.sessions.get("127.0.0.1", None).attach_filter("it")


async def test_an_origin_of_a_filter_is_on_record_with_the_private_sessions_user(make_rig: MakeRig) -> None:
    rig = make_rig()
    session = private(rig)
    origin = Origin("filter", ClientKind.FILTER, "127.0.0.1", 0)
    connection = await rig.engine.connect(session, rig.target(), origin, user=session.user)
    connection.kill()
    record = await rig.record()
    assert (record.entry, record.user, record.session) == ("filter", "kim", session.id)
