"""Grants open exactly what was promised, and to whom, until the first thing that ends them; then at once no more."""

from __future__ import annotations

import gc
import ipaddress
import math
from collections.abc import Callable

import pytest
from tests.engine.filters import Copying
from tests.engine.promising import only_the_server, parent_of, timers_of
from tests.engine.rig import Plugin, Rig, entry, wait_for

from doorward.api import (
    BadArgument,
    ConnectEvent,
    ConnectionFlags,
    OutOfResources,
    Scope,
    Terminating,
)
from doorward.api.contracts import GRANT_TIMEOUT_S
from doorward.config.model import Limits
from doorward.engine.grants import TIMEOUT_S_MAX, Promise
from doorward.engine.session import Session
from doorward.engine.target import target_of

pytestmark = pytest.mark.anyio

MakeRig = Callable[..., Rig]
# Not guarded, so that it may be granted without a parent; nobody dials it here.
FAR = "192.0.2.7"


def opens(rig: Rig, session: Session, host: str = FAR, port: int = 2000, transport: str = "tcp") -> bool:
    """Whether this session could use some grant for this; nothing is used."""
    target = target_of(host, port)
    return rig.engine.grants.connect(session, transport, target) is not None  # type: ignore[arg-type]  # one of both


def use(rig: Rig, session: Session, port: int) -> None:
    """Use a grant without a connection."""
    promise = rig.engine.grants.connect(session, "tcp", target_of(FAR, port))
    assert promise is not None
    promise.use()


async def test_a_granted_port_is_open_once_with_the_rule_of_its_parent(make_rig: MakeRig) -> None:
    rig = make_rig()
    only_the_server(rig)
    parent, other = await parent_of(rig), rig.another_server()
    target = target_of("127.0.0.1", other.port)
    refused = await rig.connect(target)
    assert refused.refusal is not None
    assert refused.refusal.reason.startswith("guarded")
    grant = parent.session.allow_connect("127.0.0.1", other.port, parent=parent)
    assert (grant.active, grant.uses, grant.socket_name) == (True, 0, None)
    granted = await rig.connect(target)
    assert granted.refusal is None
    assert (granted.decision.reason, granted.decision.rule, granted.decision.rule_line) == (
        "granted",
        "parent",
        7,
    )
    assert granted.flags is ConnectionFlags.SECONDARY
    assert parent.flags is ConnectionFlags.NONE
    assert (grant.active, grant.uses) == (False, 1)
    assert (await rig.connect(target)).refusal is not None
    granted.kill()
    record = rig.recorder.records[-1]
    assert (record.action, record.reason, record.rule, record.end) == ("allow", "granted", "parent", "killed")


async def test_a_grant_for_several_uses_stays_until_it_is_taken_back(make_rig: MakeRig) -> None:
    rig = make_rig()
    only_the_server(rig)
    parent, other = await parent_of(rig), rig.another_server()
    target = target_of("127.0.0.1", other.port)
    async with parent.session.allow_connect("127.0.0.1", other.port, parent=parent, multiple=True) as grant:
        live = [await rig.connect(target) for _ in range(3)]
        assert grant.uses == 3
    assert not grant.active
    assert (await rig.connect(target)).refusal is not None
    assert all(connection.end is None for connection in live)
    grant.cancel()
    assert rig.engine.grants.alive == 0


@pytest.mark.parametrize(
    ("host", "port", "transport", "open_"),
    [
        (FAR, 1999, "tcp", False),
        (FAR, 2000, "tcp", True),
        (FAR, 2005, "tcp", True),
        (FAR, 2006, "tcp", False),
        (FAR, 2000, "udp", False),
        ("192.0.2.8", 2000, "tcp", False),
        ("::ffff:192.0.2.7", 2000, "tcp", True),
        ("some.test", 2000, "tcp", False),
    ],
)
async def test_only_what_was_promised_is_open(
    make_rig: MakeRig, host: str, port: int, transport: str, open_: bool
) -> None:
    rig = make_rig()
    session = rig.engine.sessions.get("127.0.0.1", None)
    session.allow_connect(FAR, 2000, last_port=2005)
    assert opens(rig, session, host, port, transport) is open_


async def test_a_grant_for_udp_is_none_for_tcp(make_rig: MakeRig) -> None:
    rig = make_rig()
    session = rig.engine.sessions.get("127.0.0.1", None)
    session.allow_connect(FAR, 2000, transport="udp")
    assert opens(rig, session, transport="udp")
    assert not opens(rig, session)


async def test_the_oldest_of_several_grants_is_used_first(make_rig: MakeRig) -> None:
    rig = make_rig()
    session = rig.engine.sessions.get("127.0.0.1", None)
    first = session.allow_connect(FAR, 2000)
    second = session.allow_connect(FAR, 2000)
    assert rig.engine.grants.connect(session, "tcp", target_of(FAR, 2000)) is first
    first.cancel()
    assert rig.engine.grants.connect(session, "tcp", target_of(FAR, 2000)) is second


async def test_the_name_of_the_parents_server_means_the_granted_address(make_rig: MakeRig) -> None:
    addresses = {"one.test": "127.0.0.1", "two.test": "127.0.0.1"}
    rig = make_rig(lookup=lambda name: (ipaddress.ip_address(addresses[name]),))
    only_the_server(rig)
    other = rig.another_server()
    parent = await parent_of(rig, target=rig.target("one.test"))
    grant = parent.session.allow_connect("127.0.0.1", other.port, parent=parent, multiple=True)
    by_address = await parent_of(rig, target=target_of("127.0.0.1", other.port))
    rig.lookups.clear()
    by_name = await parent_of(rig, target=target_of("ONE.test.", other.port))
    assert by_name.external_peer_name == by_address.external_peer_name
    assert rig.lookups == []
    another_name = await rig.connect(target_of("two.test", other.port))
    assert another_name.refusal is not None
    assert grant.uses == 2


async def test_a_name_means_nothing_where_the_grant_is_for_another_address_than_the_parents(
    make_rig: MakeRig,
) -> None:
    rig = make_rig(lookup=lambda _: (ipaddress.ip_address("127.0.0.1"),))
    only_the_server(rig)
    parent = await parent_of(rig, target=rig.target("one.test"))
    parent.session.allow_connect(FAR, 2000, parent=parent)
    assert opens(rig, parent.session)
    assert not opens(rig, parent.session, "one.test")


@pytest.mark.parametrize("address_based", [False, True])
async def test_another_session_of_the_same_client_is_let_in_only_if_the_grant_says_so(
    make_rig: MakeRig, address_based: bool
) -> None:
    rig = make_rig()
    table = rig.engine.sessions
    session, kim, elsewhere = (
        table.get("192.0.2.1", None),
        table.get("192.0.2.1", "kim"),
        table.get("192.0.2.2", None),
    )
    disguised = table.get("::ffff:192.0.2.1", None)
    grant = session.allow_connect(FAR, 2000, address_based=address_based)
    assert opens(rig, session)
    assert opens(rig, kim) is address_based
    assert opens(rig, disguised) is address_based
    assert not opens(rig, elsewhere)
    grant.cancel()
    assert not any(opens(rig, other) for other in (session, kim, disguised))


async def test_an_unused_grant_expires_at_its_time_and_not_before(make_rig: MakeRig) -> None:
    rig = make_rig()
    timers = timers_of(rig)
    session = rig.engine.sessions.get("127.0.0.1", None)
    grant = session.allow_connect(FAR, 2000)
    short = session.allow_connect(FAR, 3000, timeout_s=1.5)
    timers.advance(1.4)
    assert [short.active, grant.active] == [True, True]
    timers.advance(0.2)
    assert [short.active, grant.active] == [False, True]
    assert not opens(rig, session, port=3000)
    timers.advance(GRANT_TIMEOUT_S - 1.7)
    assert opens(rig, session)
    timers.advance(0.2)
    assert not grant.active
    assert not opens(rig, session)
    assert not timers.waiting


async def test_a_grant_dies_with_its_parent_at_once(make_rig: MakeRig) -> None:
    rig = make_rig()
    timers = timers_of(rig)
    parent = await parent_of(rig)
    endless = parent.session.allow_connect(FAR, 2000, parent=parent, timeout_s=None)
    timed = parent.session.allow_connect(FAR, 3000, parent=parent, multiple=True)
    timers.advance(10 * TIMEOUT_S_MAX - 1)
    assert [endless.active, timed.active] == [True, False]
    parent.kill()
    assert [endless.active, timed.active] == [False, False]
    assert not opens(rig, parent.session)
    assert not timers.waiting
    with pytest.raises(Terminating):
        parent.session.allow_connect(FAR, 2000, parent=parent)


async def test_a_kill_ends_grants_at_once_also_of_a_parent_that_the_relay_carries(make_rig: MakeRig) -> None:
    """The relay says later that it is done; the hole is closed by then."""
    rig = make_rig()
    parent = (await rig.converse()).connection
    await wait_for(lambda: parent.relay_id is not None, "the relay carries it")
    grant = parent.session.allow_connect(FAR, 2000, parent=parent)
    parent.kill()
    assert not grant.active
    assert not opens(rig, parent.session)
    with pytest.raises(Terminating):
        parent.session.allow_connect(FAR, 2000, parent=parent)
    assert rig.engine.grants.alive == 0


async def test_a_grant_dies_with_its_session_at_once(make_rig: MakeRig) -> None:
    rig = make_rig()
    timers = timers_of(rig)
    session = rig.engine.sessions.get("192.0.2.1", None)
    grant = session.allow_connect(FAR, 2000, address_based=True)
    rig.engine.sessions.remove(session)
    assert not grant.active
    assert not opens(rig, rig.engine.sessions.get("192.0.2.1", None))
    assert not timers.waiting
    with pytest.raises(Terminating):
        session.allow_connect(FAR, 2000)


@pytest.mark.parametrize("how", ["cancel", "use", "time", "parent", "session", "block"])
async def test_whatever_ends_a_grant_ends_it_once_and_everywhere(make_rig: MakeRig, how: str) -> None:
    rig = make_rig()
    timers = timers_of(rig)
    parent = await parent_of(rig)
    session = parent.session
    grant = session.allow_connect(FAR, 2000, parent=parent, address_based=True)
    if how == "cancel":
        grant.cancel()
    elif how == "use":
        grant.use()
    elif how == "time":
        timers.advance(GRANT_TIMEOUT_S)
    elif how == "parent":
        parent.kill()
    elif how == "session":
        rig.engine.sessions.remove(session)
    else:
        with pytest.raises(ZeroDivisionError):
            async with grant:
                raise ZeroDivisionError
    for _ in range(2):
        assert not grant.active
        assert not opens(rig, session)
        assert not session.promises
        assert not parent.extra.promises
        assert not timers.waiting
        assert rig.engine.grants.alive == 0
        grant.cancel()


async def test_a_guarded_address_is_granted_only_as_the_parents_own_peer(make_rig: MakeRig) -> None:
    rig = make_rig()
    parent = await parent_of(rig)
    session = parent.session
    for address in (
        "127.0.0.1",
        "127.0.0.2",
        "::1",
        "169.254.169.254",
        "2002:7f00:1::",
        "224.0.0.1",
        "0.0.0.0",
    ):
        with pytest.raises(BadArgument, match="guarded"):
            session.allow_connect(address, 2000)
        if address != "127.0.0.1":
            with pytest.raises(BadArgument, match="guarded"):
                session.allow_connect(address, 2000, parent=parent)
    assert session.allow_connect("127.0.0.1", 2000, parent=parent).active
    assert session.allow_connect("::ffff:127.0.0.1", 2000, parent=parent).active


async def test_a_peer_that_a_filter_has_invented_opens_nothing_that_is_guarded(make_rig: MakeRig) -> None:
    rig = make_rig()
    session = rig.engine.sessions.get("127.0.0.1", None)
    bind = await session.emulate_client_bind(("127.0.0.1", rig.server.port), ("192.0.2.9", 80))
    invented = bind.emulate_connection(Copying(), ("169.254.169.254", 80), ("192.0.2.9", 80))
    with pytest.raises(BadArgument, match="guarded"):
        session.allow_connect("169.254.169.254", 80, parent=invented)
    invented.kill()
    bind.kill()


@pytest.mark.parametrize(
    "arguments",
    [
        {"address": "some.test"},
        {"address": ""},
        {"port": 0},
        {"port": 65_536},
        {"port": -1},
        {"last_port": 1999},
        {"last_port": 65_536},
        {"timeout_s": 0},
        {"timeout_s": -1},
        {"timeout_s": math.nan},
        {"timeout_s": math.inf},
        {"timeout_s": TIMEOUT_S_MAX + 1},
        {"timeout_s": None},
        {"transport": "sctp"},
        {"parent": object()},
    ],
)
async def test_what_cannot_be_meant_is_refused_and_leaves_nothing(
    make_rig: MakeRig, arguments: dict[str, object]
) -> None:
    rig = make_rig()
    session = rig.engine.sessions.get("127.0.0.1", None)
    given = {"address": FAR, "port": 2000, **arguments}
    with pytest.raises(BadArgument):
        session.allow_connect(**given)  # type: ignore[arg-type]  # that is the point
    assert rig.engine.grants.alive == 0
    assert not session.promises


async def test_a_session_has_so_many_grants_and_no_more_until_one_ends(make_rig: MakeRig) -> None:
    rig = make_rig(limits=Limits(grants_max_per_session=3))
    session, other = (rig.engine.sessions.get(f"192.0.2.{host}", None) for host in (1, 2))
    grants = [session.allow_connect(FAR, 2000 + number) for number in range(3)]
    with pytest.raises(OutOfResources, match="3"):
        session.allow_connect(FAR, 2003)
    other.allow_connect(FAR, 2003)
    grants[1].cancel()
    session.allow_connect(FAR, 2003)
    assert rig.engine.grants.alive == 4


@pytest.mark.parametrize("why", ["denied", "raised", "refused"])
async def test_a_grant_is_used_up_by_a_connection_that_comes_to_nothing(make_rig: MakeRig, why: str) -> None:
    async def handle(event: ConnectEvent) -> None:
        if why == "denied":
            event.connection.deny()
        elif why == "raised":
            raise ZeroDivisionError

    plugin = Plugin("it", [], connect=handle)
    rig = make_rig()
    only_the_server(rig, [entry(plugin, scope=Scope.SECONDARY)])
    parent, other = await parent_of(rig), rig.another_server()
    if why == "refused":
        other.close()
    grant = parent.session.allow_connect("127.0.0.1", other.port, parent=parent)
    connection = await rig.connect(target_of("127.0.0.1", other.port))
    assert connection.refusal is not None
    expected = {"denied": "denied_by_filter", "raised": "filter_failed", "refused": "connection_refused"}
    assert connection.refusal.reason == expected[why]
    assert (grant.active, grant.uses) == (False, 1)
    rig.failures.clear()


async def test_five_thousand_grants_leave_nothing_behind(make_rig: MakeRig) -> None:
    rig = make_rig(limits=Limits(grants_max_per_session=10_000))
    timers = timers_of(rig)
    parent = await parent_of(rig)
    session, grants = parent.session, rig.engine.grants
    for number in range(5_000):
        session.allow_connect(
            FAR, 1 + number, parent=parent if number % 3 else None, address_based=number % 2 == 0
        )
    assert grants.alive == len(timers.waiting) == 5_000
    for number in range(0, 5_000, 5):
        use(rig, session, 1 + number)
    assert grants.alive == 4_000
    parent.kill()
    timers.advance(GRANT_TIMEOUT_S)
    assert grants.alive == 0
    for left in (
        timers.waiting,
        session.promises,
        parent.extra.promises,
        grants._connects,
        grants._factories,
    ):
        assert not left
    gc.collect()
    assert not [o for o in gc.get_objects() if isinstance(o, Promise) and o.session is session]
