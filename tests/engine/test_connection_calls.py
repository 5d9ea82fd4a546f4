"""Every call of a connection, in every place from which a filter may make it: right, or refused by its own error."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Awaitable, Callable, Iterator
from types import SimpleNamespace
from typing import Any, Final, TypeAlias, cast

import pytest
from tests.engine.filters import Copying, Pumping
from tests.engine.rig import Plugin, Rig, attaching, entry, wait_for

from doorward.api import (
    AcceptEvent,
    BadArgument,
    BadContext,
    BindEvent,
    ConnectEvent,
    EventKind,
    IpFilter,
    ListenEvent,
    NotConnected,
    NotEmulated,
    NotSupported,
    Priority,
    Socket,
    Terminating,
    UdpDestinationEvent,
)
from doorward.api.filters import ClientKind
from doorward.engine.association import FilterEntry
from doorward.engine.chain import Attached
from doorward.engine.connection import Connection
from doorward.engine.dispatch import dispatch
from doorward.engine.extra import DestinationChain, UdpSide
from doorward.engine.judgement import inputs_of
from doorward.engine.operation import Operation
from doorward.engine.origin import Origin
from doorward.policy.model import Action, Decision, Verdict

pytestmark = pytest.mark.anyio

MakeRig = Callable[..., Rig]
Outcome: TypeAlias = type[Exception] | None
REMOTE: Final = ("192.0.2.1", 53)
LOCAL: Final = ("192.0.2.2", 1024)

CALLS: Final[dict[str, Callable[[Connection], object]]] = {
    "attach": lambda c: c.attach_data_filter(Copying()),
    "attach for destination": lambda c: c.attach_data_filter_with_destination(Copying(), REMOTE),
    "deny": lambda c: c.deny("not_this"),
    "emulate connect": lambda c: c.emulate_for_connect(Copying()),
    "emulate bind": lambda c: c.emulate_for_bind(),
    "emulate connection": lambda c: c.emulate_connection(Copying(), REMOTE, LOCAL),
    "bytes sent": lambda c: c.increment_bytes_sent(1),
    "socket name": lambda c: c.set_socket_name(LOCAL),
    "client address": lambda c: c.set_client_address(("127.0.0.1", 1024)),
    "buffer size": lambda c: c.set_buffer_size(1024),
    "ip filter": lambda c: c.set_ip_filter(IpFilter()),
    "read ip filter": lambda c: c.ip_filter,
    "peer name": lambda c: c.external_peer_name,
    "own name": lambda c: c.external_socket_name,
    "flags": lambda c: c.flags,
    "session": lambda c: c.session,
    "note": lambda c: c.note("seen", "it"),
}
# What is not legal in a place, and how it is refused. Whatever is not named there is legal.
NOWHERE_ELSE: Final[dict[str, Outcome]] = {
    "attach": BadContext,
    "attach for destination": BadContext,
    "deny": BadContext,
    "emulate connect": BadContext,
    "emulate bind": BadContext,
    "emulate connection": NotEmulated,
    "bytes sent": NotEmulated,
    "socket name": NotEmulated,
    "client address": NotSupported,
    "peer name": NotConnected,
    "own name": NotConnected,
}


def _but(*legal: str, **refused: type[Exception]) -> dict[str, Outcome]:
    rest = {call: error for call, error in NOWHERE_ELSE.items() if call not in legal}
    return rest | {call.replace("_", " "): error for call, error in refused.items()}


REFUSED: Final[dict[str, dict[str, Outcome]]] = {
    "connect": _but("attach", "deny", "emulate connect"),
    "bind": _but("deny", "emulate bind"),
    "udp bind": _but("attach", "attach for destination", "deny", emulate_bind=NotSupported),
    "listen": _but(),
    "accept": _but("attach", "deny"),
    "udp destination": _but("attach", "attach for destination"),
    "resolve": _but(),
    "established": _but("peer name", "own name"),
    "pump": _but("peer name", "own name"),
    "outside": _but("peer name", "own name"),
    "terminating": {
        **_but("peer name"),
        **dict.fromkeys(
            ("attach", "attach for destination", "deny", "emulate connect", "emulate bind", "own name",
             "emulate connection", "socket name", "client address", "ip filter"), Terminating
        ),
    },
}  # fmt: skip
STAGED: Final = {
    "bind": (EventKind.BIND, Operation.BIND, "tcp"),
    "udp bind": (EventKind.BIND, Operation.UDP, "udp"),
    "listen": (EventKind.LISTEN, Operation.BIND, "tcp"),
    "accept": (EventKind.ACCEPT, Operation.ACCEPT, "tcp"),
    "udp destination": (EventKind.UDP_DESTINATION, Operation.UDP, "udp"),
}


class Stage:
    """A connection in one of its places, where one call is made and its outcome kept."""

    def __init__(self, rig: Rig, call: Callable[[Connection], object]) -> None:
        self.rig = rig
        self.call = call
        self.outcomes: list[Outcome] = []
        self.plugin = Plugin("it", [], **dict.fromkeys((str(kind) for kind in EventKind), self._handle))
        self.place = ""

    def entry(self, *kinds: EventKind) -> FilterEntry:
        return entry(self.plugin, events=kinds)

    def try_it(self, connection: Any) -> None:
        try:
            self.call(connection)
        except Exception as error:  # whatever it is, it is looked at
            self.outcomes.append(type(error))
        else:
            self.outcomes.append(None)

    async def _handle(self, event: Any) -> None:
        if not self.outcomes:
            self.try_it(event.connection)

    async def _pump(self, internal: Socket, external: Socket, connection: Any) -> None:
        self.try_it(connection)

    async def play(self, place: str) -> Outcome:
        """Have the call made in this place. Raises AssertionError unless it was made exactly once."""
        if place in STAGED:
            await self._staged(*STAGED[place])
        else:
            await cast("Callable[[], Awaitable[None]]", getattr(self, f"_in_{place}"))()
        assert len(self.outcomes) == 1
        return self.outcomes[0]

    async def _connect(self, kind: EventKind, host: str = "127.0.0.1") -> Connection:
        self.rig.engine.ruling = self.rig.ruling([self.entry(kind)])
        return await self.rig.connect(self.rig.target(host))

    async def _in_connect(self) -> None:
        await self._connect(EventKind.CONNECT)

    async def _in_resolve(self) -> None:
        await self._connect(EventKind.RESOLVE, "one.test")

    async def _in_established(self) -> None:
        await self._connect(EventKind.ESTABLISHED)

    async def _in_terminating(self) -> None:
        self.rig.engine.ruling = self.rig.ruling([self.entry(EventKind.CONNECT)])
        self.plugin.handlers["connect"] = None
        (await self.rig.connect()).kill()
        await wait_for(lambda: bool(self.outcomes), "its end")

    async def _in_outside(self) -> None:
        self.try_it(await self.rig.connect())

    async def _in_pump(self) -> None:
        attach = Plugin("it", [], connect=attaching(Pumping(self._pump)))
        self.rig.engine.ruling = self.rig.ruling([entry(attach)])
        talk = await self.rig.converse()
        await talk.both_ways(b"x")

    async def _staged(self, kind: EventKind, operation: Operation, transport: Any) -> None:
        connection = begun(self.rig, operation, transport)
        connection.entries = (self.entry(kind),)
        destination = Destination(connection) if transport == "udp" else None
        side = SimpleNamespace(
            destination=lambda _: destination, own_name=lambda: None, read_all=lambda: None, note=""
        )
        connection.extra.udp = cast("UdpSide", side)
        chain = cast("DestinationChain", destination) if kind is EventKind.UDP_DESTINATION else None
        await dispatch(connection, kind, event_of(kind, connection), chain)
        connection.extra.udp = None
        connection.kill()


class Destination:
    """A remote peer of a UDP mapping, as dispatching sees it."""

    denied: str | None = None

    def __init__(self, connection: Connection) -> None:
        self.attached: list[Attached] = []
        self.decision = connection.decision
        self.entries = connection.entries
        self.verdicts: list[Verdict] = []


def begun(rig: Rig, operation: Operation, transport: Any) -> Connection:
    """A connection that policy has allowed, and nothing more."""
    origin = Origin("socks5", ClientKind.SOCKS, "127.0.0.1", 4242)
    session = rig.engine.sessions.get("127.0.0.1", None)
    connection = rig.engine.begin(session, rig.target(), origin, operation, transport)
    inputs = inputs_of(session, connection.target, None, 0.0, lambda _: True)
    connection.judged = Decision(Action.ALLOW, "rule_allow", inputs, "revision")
    return connection


def event_of(kind: EventKind, connection: Any) -> Any:
    if kind is EventKind.BIND:
        return BindEvent(connection, connection.transport, "", 0, None)
    if kind is EventKind.LISTEN:
        return ListenEvent(connection, "127.0.0.1", 2000, None)
    if kind is EventKind.ACCEPT:
        return AcceptEvent(connection, connection, REMOTE, LOCAL, None)
    assert kind is EventKind.UDP_DESTINATION
    return UdpDestinationEvent(connection, cast("Any", None), None)


def table() -> Iterator[Any]:
    for place, refused in REFUSED.items():
        for call in CALLS:
            yield pytest.param(place, call, refused.get(call), id=f"{call} in {place}")


@pytest.mark.parametrize(("place", "call", "expected"), list(table()))
async def test_a_call_is_legal_in_its_places_and_refused_in_all_others(
    make_rig: MakeRig, place: str, call: str, expected: Outcome
) -> None:
    rig = make_rig(lookup=lambda _: (ipaddress.ip_address("127.0.0.1"),))
    assert await Stage(rig, CALLS[call]).play(place) is expected


@pytest.mark.parametrize("place", REFUSED)
async def test_kill_is_legal_everywhere_and_ends_it(make_rig: MakeRig, place: str) -> None:
    rig = make_rig(lookup=lambda _: (ipaddress.ip_address("127.0.0.1"),))
    try:
        outcome = await Stage(rig, lambda c: c.kill()).play(place)
    except ConnectionResetError:  # the test's own wire, in `pump`
        outcome = None
    assert outcome is None
    record = await rig.record()
    assert record.end == "killed"


@pytest.mark.parametrize("call", ["attach", "deny", "emulate connect"])
async def test_what_a_filter_has_left_running_has_no_say_while_another_one_is_asked(
    make_rig: MakeRig, call: str
) -> None:
    """Nor would the record blame the right one."""
    met: list[Exception] = []
    tried = asyncio.Event()

    async def try_later(connection: Any) -> None:
        try:
            CALLS[call](connection)
        except BadContext as error:
            met.append(error)
        tried.set()

    async def leave(event: ConnectEvent) -> None:
        rig.engine.supervisor.spawn(try_later(event.connection), name="left running")

    async def wait(event: ConnectEvent) -> None:
        await tried.wait()

    rig = make_rig(entry(Plugin("one", [], connect=leave)), entry(Plugin("two", [], connect=wait)))
    connection = await rig.connect()
    assert connection.refusal is None
    assert len(met) == 1
    assert [(v.filter, v.verdict) for v in connection.verdicts] == [("one", "joined"), ("two", "joined")]


@pytest.mark.parametrize(
    "call",
    [
        lambda c: c.attach_data_filter(Copying),
        lambda c: c.attach_data_filter("copying"),
        lambda c: c.attach_data_filter(Copying(), "middle"),
        lambda c: c.emulate_for_connect(None),
        lambda c: c.set_buffer_size(1.5),
        lambda c: c.set_buffer_size("1"),
        lambda c: c.set_ip_filter("192.0.2.0/24"),
    ],
)
async def test_what_cannot_be_meant_is_refused_at_the_call_and_leaves_nothing(
    make_rig: MakeRig, call: Callable[[Any], None]
) -> None:
    async def try_it(event: ConnectEvent) -> None:
        with pytest.raises(BadArgument):
            call(event.connection)

    rig = make_rig(entry(Plugin("it", [], connect=try_it)))
    connection = await rig.connect()
    assert connection.refusal is None
    assert (connection.attached, connection.emulator, connection.ip_filter) == ([], None, None)
    assert Copying.context is None


async def test_what_is_attached_for_a_udp_peer_is_that_peers_alone(make_rig: MakeRig) -> None:
    rig = make_rig()
    connection = begun(rig, Operation.UDP, "udp")
    destination = Destination(connection)

    async def attach(event: UdpDestinationEvent) -> None:
        event.connection.attach_data_filter(Copying(), Priority.NAT, "context")

    plugin = Plugin("it", [], udp_destination=attach)
    destination.entries = (entry(plugin, events=[EventKind.UDP_DESTINATION]),)
    await dispatch(
        connection,
        EventKind.UDP_DESTINATION,
        event_of(EventKind.UDP_DESTINATION, connection),
        cast("DestinationChain", destination),
    )
    assert connection.attached == []
    assert [(item.priority, item.name, item.data_filter.context) for item in destination.attached] == [
        (Priority.NAT, "it", "context")
    ]
    assert destination.verdicts == [("it", "attached", "")]
    connection.kill()


@pytest.mark.parametrize("name", [("example.org", 1), ("", 1), ("127.0.0.1", -1), ("127.0.0.1", 65_536)])
async def test_a_name_that_is_none_is_refused(make_rig: MakeRig, name: tuple[str, int]) -> None:
    errors: list[Exception] = []

    async def connect(event: ConnectEvent) -> None:
        event.connection.emulate_for_connect(Copying())
        with pytest.raises(BadArgument) as caught:
            event.connection.set_socket_name(name)
        errors.append(caught.value)

    rig = make_rig(entry(Plugin("it", [], connect=connect)))
    await rig.connect()
    assert len(errors) == 1


@pytest.mark.parametrize("size", [0, -1, 1024 * 1024 + 1])
async def test_a_buffer_of_no_size_or_too_much_is_refused(make_rig: MakeRig, size: int) -> None:
    rig = make_rig()
    connection = await rig.connect()
    with pytest.raises(BadArgument, match=str(size)):
        connection.set_buffer_size(size)


@pytest.mark.parametrize("moment", ["connect", "pump"])
async def test_a_buffer_size_holds_for_both_wires_from_when_it_is_set(make_rig: MakeRig, moment: str) -> None:
    seen: list[tuple[str, bytes]] = []

    async def pump(internal: Socket, external: Socket, connection: Any) -> None:
        if moment == "pump":
            connection.set_buffer_size(3)
        for side, sock in (("internal", internal), ("external", external)):
            while sum(len(data) for where, data in seen if where == side) < 8:
                seen.append((side, await sock.recv()))

    async def connect(event: ConnectEvent) -> None:
        event.connection.attach_data_filter(Pumping(pump))
        if moment == "connect":
            event.connection.set_buffer_size(3)

    rig = make_rig(entry(Plugin("it", [], connect=connect)))
    talk = await rig.converse()
    await talk.client.send(b"12345678")
    await talk.server.send(b"abcdefgh")
    await wait_for(lambda: len(seen) == 6, "three reads of each side")
    assert [data for _, data in seen] == [b"123", b"456", b"78", b"abc", b"def", b"gh"]


async def test_an_ip_filter_is_copied_both_ways(make_rig: MakeRig) -> None:
    rig = make_rig()
    connection = await rig.connect()
    given = IpFilter("192.0.2.1")
    connection.set_ip_filter(given)
    given.include_range("192.0.2.2")
    read = connection.ip_filter
    assert read is not None
    read.include_range("192.0.2.3")
    assert connection.ip_filter == IpFilter("192.0.2.1")
    connection.set_ip_filter(None)
    assert connection.ip_filter is None
