"""What filters may look up in a session's name, and what policy would answer."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable

import pytest
from tests.engine.ears import FAR_RULE, Does, Ears, fail, lookup, session_of, wait
from tests.engine.rig import Rig

from doorward.api import (
    AccessDenied,
    BadArgument,
    NameNotFound,
    NotFound,
    ReplyHint,
    ResolveEvent,
    Terminating,
)
from doorward.config.model import Limits
from doorward.policy.model import Action, PortRange, Protocols, Rule

pytestmark = pytest.mark.anyio

MakeRig = Callable[..., Rig]


async def test_a_session_resolves_with_the_filters_listening(make_rig: MakeRig) -> None:
    ears = Ears(after=lambda event: event.set_result("192.0.2.9", *event.results))
    rig = make_rig(ears.entry(), lookup=lookup)
    assert await session_of(rig).resolve("far.test") == ("192.0.2.9", "192.0.2.7", "2001:db8::7")
    assert [event.connection for event in ears.events] == [None, None]
    assert ears.events[0].session is session_of(rig)
    plain = make_rig(lookup=lookup)
    assert await session_of(plain).resolve("far.test") == ("192.0.2.7", "2001:db8::7")
    with pytest.raises(NameNotFound):
        await session_of(plain).resolve("nowhere.test")


async def test_a_name_is_read_as_a_clients_is_and_an_address_is_its_own_answer(make_rig: MakeRig) -> None:
    ears = Ears()
    session = session_of(make_rig(ears.entry(), lookup=lookup))
    assert await session.resolve("FAR.Test.") == ("192.0.2.7", "2001:db8::7")
    assert [event.name for event in ears.events] == ["far.test", "far.test"]
    for text, address in (("::ffff:192.0.2.7", "192.0.2.7"), ("0xc0.0.2.7", "192.0.2.7"), ("[::1]", "::1")):
        assert await session.resolve(text) == (address,)
    for text in ("", "..", "far test", "a" * 300, "192.0.2.256", "far\0.test"):
        with pytest.raises(NameNotFound):
            await session.resolve(text)
    assert len(ears.events) == 2


@pytest.mark.parametrize("policy", ["closed", "open"])
@pytest.mark.parametrize(
    ("does", "reason"),
    [
        (fail, "filter_failed"),
        (wait, "filter_stalled"),
        (lambda event: event.set_result("x"), "filter_failed"),
    ],
)
async def test_who_resolves_in_a_sessions_name_meets_a_denial_where_another_filter_fails(
    make_rig: MakeRig, policy: str, does: Does, reason: str
) -> None:
    rig = make_rig(Ears(before=does).entry(fail=policy), lookup=lookup, limits=Limits(event_timeout_s=0.05))
    if policy == "closed":
        with pytest.raises(AccessDenied) as denied:
            await session_of(rig).resolve("far.test")
        assert denied.value.reason == reason
    else:
        assert await session_of(rig).resolve("far.test") == ("192.0.2.7", "2001:db8::7")
    assert [name for name, _ in rig.failures] == ["it"]


async def test_who_resolves_in_a_sessions_name_meets_a_filters_denial(make_rig: MakeRig) -> None:
    rig = make_rig(Ears(before=lambda event: event.deny("not_this")).entry())
    with pytest.raises(AccessDenied) as denied:
        await session_of(rig).resolve("far.test")
    assert (denied.value.reason, denied.value.hint) == ("not_this", ReplyHint.NAME_NOT_FOUND)


async def test_a_filter_that_looks_up_another_name_while_answering_is_not_asked_itself(
    make_rig: MakeRig,
) -> None:
    async def ask_for_another(event: ResolveEvent) -> None:
        if event.before:
            event.set_result(*await event.session.resolve("here.test"))

    first, second = Ears("first", before=ask_for_another), Ears("second")
    rig = make_rig(first.entry(), second.entry(), lookup=lookup)
    connection = await rig.connect(rig.target("far.test"))
    assert connection.refusal is None
    assert [heard[:2] for heard in first.heard] == [("before", "far.test")]
    assert [heard[:2] for heard in second.heard] == [("before", "here.test"), ("after", "here.test")]


async def test_a_task_left_by_a_handler_ends_with_its_look_up(make_rig: MakeRig) -> None:
    started: list[asyncio.Task[bool]] = []

    def leave(_: ResolveEvent) -> None:
        started.append(asyncio.get_running_loop().create_task(asyncio.Event().wait()))

    rig = make_rig(Ears(before=leave).entry(), lookup=lookup)
    await session_of(rig).resolve("far.test")
    await asyncio.wait(started, timeout=5)
    assert started[0].cancelled()


async def test_the_names_of_an_address_are_asked_for_with_the_filters_listening(make_rig: MakeRig) -> None:
    ears = Ears(after=lambda event: event.set_result("other.test", *event.results))
    rig = make_rig(ears.entry(), lookup_back=lambda address: (f"host-{address}.test",))
    assert await session_of(rig).resolve_address("::ffff:192.0.2.7") == ("other.test", "host-192.0.2.7.test")
    assert ears.heard == [
        ("before", None, "192.0.2.7", ()),
        ("after", None, "192.0.2.7", ("host-192.0.2.7.test",)),
    ]
    for text in ("here.test", "", "1.2.3"):
        with pytest.raises(BadArgument):
            await session_of(rig).resolve_address(text)


async def test_a_session_that_has_ended_looks_nothing_up(make_rig: MakeRig) -> None:
    rig = make_rig(lookup=lookup)
    session = session_of(rig)
    rig.engine.sessions.remove(session)
    for call in (
        session.resolve("far.test"),
        session.resolve_address("192.0.2.7"),
        session.check_access("tcp/80", "far.test"),
    ):
        with pytest.raises(Terminating):
            await call
    assert rig.lookups == []


WEB = Protocols(
    {
        "web": (PortRange("tcp", 80, 80), PortRange("tcp", 8080, 8090)),
        "names": (PortRange("udp", 53, 53), PortRange("tcp", 53, 53)),
    }
)


@pytest.mark.parametrize(
    ("protocol", "host", "port", "allowed"),
    [
        ("web", "far.test", None, True),
        ("web", "192.0.2.7", 80, True),
        ("web", "192.0.2.7", 8085, False),
        ("tcp/80", "192.0.2.7", None, True),
        ("tcp/80-90", "192.0.2.7", 81, False),
        ("udp/80", "192.0.2.7", None, False),
        ("web", "198.51.100.1", None, False),
        ("web", "127.0.0.1", None, False),
        ("web", "here.test", None, False),
    ],
)
async def test_access_is_checked_as_policy_would_and_nothing_is_opened(
    make_rig: MakeRig, protocol: str, host: str, port: int | None, allowed: bool
) -> None:
    rule = Rule(
        "far",
        Action.ALLOW,
        to_networks=(ipaddress.ip_network("192.0.2.0/24"),),
        to_names=("*.test",),
        ports=(PortRange("tcp", 80, 80),),
    )
    rig = make_rig(lookup=lookup, rules=[rule], protocols=WEB)
    decision = await session_of(rig).check_access(protocol, host, port)
    assert decision.allowed is allowed
    assert decision.rule == ("far" if allowed else decision.rule)
    assert not rig.recorder.records
    assert not rig.engine.connections


@pytest.mark.parametrize(
    ("protocol", "host", "port", "error"),
    [
        ("unknown", "far.test", None, NotFound),
        ("web", "far.test", 81, NotFound),
        ("tcp/80", "far.test", 81, NotFound),
        ("tcp/0", "far.test", None, NotFound),
        ("tcp/", "far.test", None, NotFound),
        ("", "far.test", None, NotFound),
        ("web", "", None, BadArgument),
        ("web", "a b", None, BadArgument),
        ("web", "x" * 300, None, BadArgument),
        ("web", "nowhere.test", None, NameNotFound),
    ],
)
async def test_access_to_what_nobody_can_mean_is_an_error(
    make_rig: MakeRig, protocol: str, host: str, port: int | None, error: type[Exception]
) -> None:
    rig = make_rig(lookup=lookup, protocols=WEB, rules=[FAR_RULE])
    with pytest.raises(error):
        await session_of(rig).check_access(protocol, host, port)


async def test_access_is_checked_for_the_sessions_own_user(make_rig: MakeRig) -> None:
    rule = Rule("kims", Action.ALLOW, users=frozenset({"kim"}))
    rig = make_rig(rules=[rule])
    sessions = rig.engine.sessions
    assert (await sessions.get("127.0.0.1", "kim").check_access("tcp/80", "192.0.2.7")).allowed
    assert not (await sessions.get("127.0.0.1", None).check_access("tcp/80", "192.0.2.7")).allowed


async def test_what_a_filter_would_answer_counts_for_checking_access(make_rig: MakeRig) -> None:
    ears = Ears(before=lambda event: event.set_result("127.0.0.1"))
    rig = make_rig(ears.entry(), rules=[FAR_RULE])
    decision = await session_of(rig).check_access("tcp/80", "far.test")
    assert decision.reason.startswith("guarded")
