"""Events: in the order of the policy file, until one denies, each contained, each under its deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from tests.engine.filters import Copying
from tests.engine.rig import Handler, Plugin, Rig, attaching, entry, wait_for

from doorward.api import BadContext, ConnectEvent, EstablishedEvent, EventKind, Refuse, Terminating
from doorward.api import Session as SessionContract
from doorward.api.filters import SessionFilter
from doorward.config.model import Limits

pytestmark = pytest.mark.anyio

MakeRig = Callable[..., Rig]


def denying(reason: str) -> Handler:
    async def deny(event: ConnectEvent) -> None:
        event.connection.deny(reason)

    return deny


def raising(error: BaseException) -> Handler:
    async def fail(_: object) -> None:
        raise error

    return fail


async def test_filters_hear_each_event_in_the_order_of_the_policy_file(make_rig: MakeRig) -> None:
    heard: list[tuple[str, str]] = []
    rig = make_rig(*(entry(Plugin(name, heard)) for name in "cab"))
    talk = await rig.converse()
    await talk.end()
    record = await rig.record()
    kinds = ("connect", "established", "terminating")
    assert heard == [(name, kind) for kind in kinds for name in "cab"]
    assert record.filters == '[["c","joined",""],["a","joined",""],["b","joined",""]]'


async def test_a_connect_event_says_where_the_client_wants_to_go(make_rig: MakeRig) -> None:
    seen: list[ConnectEvent] = []

    async def look(event: ConnectEvent) -> None:
        seen.append(event)

    rig = make_rig(entry(Plugin("it", [], connect=look)))
    connection = await rig.connect(application="http")
    (event,) = seen
    assert (event.connection, event.host, event.address) == (connection, None, "127.0.0.1")
    assert (event.port, event.protocol) == (rig.server.port, "http")


async def test_a_denial_ends_the_dispatch_and_nothing_is_dialled(make_rig: MakeRig) -> None:
    heard: list[tuple[str, str]] = []
    plugins = [
        Plugin("first", heard),
        Plugin("strict", heard, connect=denying("not_today")),
        Plugin("last", heard),
    ]
    rig = make_rig(*(entry(plugin) for plugin in plugins))
    connection = await rig.connect()
    assert connection.refusal is not None
    assert (connection.refusal.action, connection.refusal.reason) == ("deny", "not_today")
    record = await rig.record()
    assert (record.action, record.reason, record.rule) == ("deny", "not_today", "local")
    assert record.filters == '[["first","joined",""],["strict","denied","not_today"]]'
    assert rig.server.nobody_came()
    assert heard == [
        ("first", "connect"),
        ("strict", "connect"),
        ("first", "terminating"),
        ("strict", "terminating"),
    ]


async def test_a_denial_without_a_usable_reason_has_the_general_one(make_rig: MakeRig) -> None:
    rig = make_rig(entry(Plugin("it", [], connect=denying("Not a slug!\x1b"))))
    connection = await rig.connect()
    assert connection.refusal is not None
    assert connection.refusal.reason == "denied_by_filter"


async def test_only_who_asked_hears_that_the_outer_leg_stands(make_rig: MakeRig) -> None:
    heard: list[tuple[str, str]] = []
    rig = make_rig(
        entry(Plugin("connect", heard), events=[EventKind.CONNECT]),
        entry(Plugin("established", heard), events=[EventKind.ESTABLISHED]),
    )
    (await rig.connect()).kill()
    await rig.record()
    assert heard == [
        ("connect", "connect"),
        ("established", "established"),
        ("connect", "terminating"),
        ("established", "terminating"),
    ]


async def test_external_names_are_known_when_the_outer_leg_stands(make_rig: MakeRig) -> None:
    names: list[tuple[str, int]] = []

    async def look(event: EstablishedEvent) -> None:
        names.append(event.connection.external_peer_name)
        names.append(event.connection.external_socket_name)

    rig = make_rig(entry(Plugin("it", [], established=look)))
    await rig.connect()
    assert names[0] == ("127.0.0.1", rig.server.port)
    assert names[1][0] == "127.0.0.1"


@pytest.mark.parametrize("moment", ["connect", "established"])
@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ValueError("mine"), "filter_failed"),
        (SystemExit(1), "filter_failed"),
        (asyncio.CancelledError(), "filter_failed"),
        (TimeoutError(), "filter_stalled"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
async def test_a_handler_that_raises_costs_its_own_connection(
    make_rig: MakeRig, moment: str, error: BaseException, reason: str
) -> None:
    heard: list[tuple[str, str]] = []
    fail = raising(error)

    async def once(event: ConnectEvent) -> None:
        if event.connection.id == 1:
            await fail(event)

    rig = make_rig(entry(Plugin("broken", heard, **{moment: once})), entry(Plugin("other", heard)))
    connection = await rig.connect()
    assert connection.refusal is not None
    assert (connection.refusal.action, connection.refusal.reason) == ("fail", reason)
    record = await rig.record()
    assert (record.action, record.reason) == ("fail", reason)
    assert record.filters is not None
    assert f'["broken","failed","{reason}"]' in record.filters
    assert [name for name, _ in rig.failures] == ["broken"]
    assert ("other", moment) not in heard
    await (await rig.converse()).both_ways(b"afterwards")


@pytest.mark.parametrize("moment", ["connect", "established"])
async def test_refuse_in_a_handler_is_a_denial_even_of_a_filter_that_fails_open(
    make_rig: MakeRig, moment: str
) -> None:
    plugin = Plugin("strict", [], **{moment: raising(Refuse("no_way"))})
    rig = make_rig(entry(plugin, fail="open"))
    connection = await rig.connect()
    assert connection.refusal is not None
    assert (connection.refusal.action, connection.refusal.reason) == ("deny", "no_way")
    record = await rig.record()
    assert (record.action, record.reason) == ("deny", "no_way")
    assert record.filters is not None
    assert '["strict","denied","no_way"]' in record.filters
    assert rig.failures == []


@pytest.mark.parametrize("moment", ["connect", "established"])
async def test_fail_open_goes_on_without_the_filter_and_what_it_attached(
    make_rig: MakeRig, moment: str
) -> None:
    async def attach_and_fail(event: ConnectEvent) -> None:
        await attaching(Copying())(event)
        if moment == "connect":
            raise ValueError("mine")

    heard: list[tuple[str, str]] = []
    handlers = {"connect": attach_and_fail, "established": raising(ValueError("mine"))}
    broken = Plugin("broken", heard, **handlers if moment == "established" else {"connect": attach_and_fail})
    kept = Plugin("kept", heard, connect=attaching(Copying()))
    rig = make_rig(entry(broken, fail="open"), entry(kept))
    connection = await rig.connect()
    assert connection.refusal is None
    assert [item.name for item in connection.attached] == ["kept"]
    connection.kill()
    record = await rig.record()
    assert record.action == "allow"
    assert record.filters is not None
    assert '["broken","failed","filter_failed"]' in record.filters
    assert [name for name, _ in rig.failures] == ["broken"]
    assert ("kept", moment) in heard
    assert ("broken", "terminating") in heard


async def test_a_denial_stands_though_its_filter_fails_open_after_it(make_rig: MakeRig) -> None:
    async def deny_and_fail(event: ConnectEvent) -> None:
        event.connection.deny("seen_it")
        raise ValueError("mine")

    heard: list[tuple[str, str]] = []
    rig = make_rig(
        entry(Plugin("it", heard, connect=deny_and_fail), fail="open"), entry(Plugin("next", heard))
    )
    connection = await rig.connect()
    assert connection.refusal is not None
    assert connection.refusal.reason == "seen_it"
    assert ("next", "connect") not in heard


@pytest.mark.parametrize("moment", ["connect", "established", "terminating"])
async def test_a_handler_that_waits_too_long_costs_its_own_connection(make_rig: MakeRig, moment: str) -> None:
    began = asyncio.Event()

    async def wait(event: ConnectEvent) -> None:
        if event.connection.id == 1:
            began.set()
            await asyncio.Event().wait()

    rig = make_rig(entry(Plugin("slow", [], **{moment: wait})), limits=Limits(event_timeout_s=0.05))
    connecting = rig.start(_connect_and_kill(rig))
    await began.wait()
    other = await rig.connect()
    assert other.refusal is None
    other.kill()
    await connecting
    await wait_for(lambda: len(rig.recorder.records) == 2, "both are on record")
    slow = next(record for record in rig.recorder.records if record.connection == 1)
    assert (slow.reason == "filter_stalled") is (moment != "terminating")
    assert [name for name, _ in rig.failures] == ["slow"]


async def _connect_and_kill(rig: Rig) -> None:
    connection = await rig.connect()
    if connection.refusal is None:
        connection.kill()


async def test_a_handler_may_wait_within_its_deadline(make_rig: MakeRig) -> None:
    async def wait(_: object) -> None:
        async with asyncio.timeout(1):
            for _ in range(3):
                await asyncio.sleep(0)

    rig = make_rig(entry(Plugin("it", [], connect=wait)))
    assert (await rig.connect()).refusal is None


@pytest.mark.parametrize("call", ["attach", "deny"])
async def test_attach_and_deny_are_legal_inside_the_connect_handler_alone(
    make_rig: MakeRig, call: str
) -> None:
    caught: list[type[BaseException]] = []

    async def attempt(event: EstablishedEvent) -> None:
        try:
            if call == "attach":
                event.connection.attach_data_filter(Copying())
            else:
                event.connection.deny()
        except (BadContext, Terminating) as error:
            caught.append(type(error))

    plugin = Plugin("it", [], established=attempt, terminating=attempt)
    rig = make_rig(entry(plugin))
    connection = await rig.connect()
    with pytest.raises(BadContext):
        connection.deny() if call == "deny" else connection.attach_data_filter(Copying())
    connection.kill()
    await rig.record()
    assert caught == [BadContext, Terminating]
    assert connection.attached == []


async def test_a_failure_in_terminating_stops_nobody_else_and_the_record_is_written(
    make_rig: MakeRig,
) -> None:
    heard: list[tuple[str, str]] = []
    rig = make_rig(
        entry(Plugin("broken", heard, terminating=raising(ValueError("mine")))), entry(Plugin("other", heard))
    )
    (await rig.connect()).kill()
    assert (await rig.record()).end == "killed"
    assert ("other", "terminating") in heard
    assert [name for name, _ in rig.failures] == ["broken"]


async def test_a_filter_that_cannot_make_its_session_object_fails_closed(make_rig: MakeRig) -> None:
    class Unable(Plugin):
        def session_filter(self, session: SessionContract) -> SessionFilter:
            raise KeyError("mine")

    rig = make_rig(entry(Unable("unable", [])))
    connection = await rig.connect()
    assert connection.refusal is not None
    assert connection.refusal.reason == "filter_failed"
    await rig.record()
    assert len(rig.failures) == 1, "who never joined does not hear of the end"


async def test_terminating_tells_the_bytes_of_both_directions(make_rig: MakeRig) -> None:
    plugin = Plugin("it", [])
    rig = make_rig(entry(plugin))
    talk = await rig.converse()
    await talk.client.send(b"four")
    await talk.server.exactly(4)
    await talk.server.send(b"seven..")
    await talk.client.exactly(7)
    await talk.end()
    await rig.record()
    (event,) = plugin.ends
    assert (event.bytes_sent, event.bytes_received, event.end) == (4, 7, "closed")


async def test_two_connections_of_a_session_may_be_in_their_handlers_at_once(make_rig: MakeRig) -> None:
    inside: list[int] = []
    both = asyncio.Event()

    async def meet(event: ConnectEvent) -> None:
        inside.append(event.connection.id)
        if len(inside) == 2:
            both.set()
        await both.wait()

    rig = make_rig(entry(Plugin("it", [], connect=meet)))
    waiting: list[Awaitable[object]] = [rig.connect(), rig.connect()]
    connections = await asyncio.gather(*waiting)
    assert len(connections) == 2
