"""Names are looked up on a client's behalf with the filters listening: before, after, and policy judges the answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from tests.engine import ears
from tests.engine.ears import FAR_RULE, Does, Ears, lookup
from tests.engine.rig import Plugin, Rig, entry, wait_for

from doorward.api import BadContext, EventKind, Refuse, ReplyHint, ResolveEvent
from doorward.api.filters import ClientKind
from doorward.config.model import Limits
from doorward.engine.target import target_of
from doorward.policy.model import Action, Rule

pytestmark = pytest.mark.anyio

MakeRig = Callable[..., Rig]


async def test_a_filter_hears_before_and_after_and_may_let_it_be(make_rig: MakeRig) -> None:
    it = Ears()
    rig = make_rig(it.entry(), lookup=lookup)
    connection = await rig.connect(rig.target("here.test"))
    assert connection.refusal is None
    assert it.heard == [
        ("before", "here.test", None, ()),
        ("after", "here.test", None, ("127.0.0.1",)),
    ]
    assert all(event.connection is connection for event in it.events)
    assert all(event.session is connection.session for event in it.events)
    connection.kill()
    await wait_for(
        lambda: ("it", "terminating") in it.plugin.heard, "the end, for who only heard of a look-up"
    )


async def test_nobody_is_asked_of_an_address_and_nobody_who_did_not_ask_to_be(make_rig: MakeRig) -> None:
    it, deaf = Ears(), Plugin("deaf", [])
    rig = make_rig(it.entry(), entry(deaf, events=[EventKind.CONNECT]), lookup=lookup)
    await rig.connect()
    assert it.heard == []
    await rig.connect(rig.target("here.test"))
    assert len(it.heard) == 2
    assert ("deaf", "resolve") not in deaf.heard
    assert deaf.heard.count(("deaf", "connect")) == 2


async def test_only_those_hear_to_whom_this_kind_of_client_matters(make_rig: MakeRig) -> None:
    socks, http = Ears("socks"), Ears("http")
    rig = make_rig(
        socks.entry(clients=[ClientKind.SOCKS]), http.entry(clients=[ClientKind.HTTP]), lookup=lookup
    )
    await rig.connect(rig.target("here.test"))
    assert (len(socks.heard), len(http.heard)) == (2, 0)


async def test_an_answer_before_takes_the_place_of_the_look_up(make_rig: MakeRig) -> None:
    first = Ears("first", before=lambda event: event.set_result("127.0.0.1"))
    second = Ears("second")
    rig = make_rig(first.entry(), second.entry())
    connection = await rig.connect(rig.target("invented.test"))
    assert connection.refusal is None
    assert connection.host == "invented.test"
    assert rig.lookups == []
    assert second.heard == []
    assert len(first.heard) == 1


async def test_an_answer_after_takes_the_place_of_the_resolvers_and_the_next_filter_sees_it(
    make_rig: MakeRig,
) -> None:
    first = Ears("first", after=lambda event: event.set_result("127.0.0.1"))
    second = Ears("second")
    rig = make_rig(first.entry(), second.entry(), lookup=lookup)
    connection = await rig.connect(rig.target("far.test"))
    assert connection.refusal is None
    assert connection.external_peer_name[0] == "127.0.0.1"
    assert second.heard[-1] == ("after", "far.test", None, ("127.0.0.1",))


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("address", ["127.0.0.1", "::ffff:127.0.0.1", "169.254.169.254", "::1%lo"])
async def test_policy_judges_what_a_filter_answers_and_guarded_stays_guarded(
    make_rig: MakeRig, moment: str, address: str
) -> None:
    it = Ears(**{moment: lambda event: event.set_result(address)})
    rig = make_rig(it.entry(), lookup=lookup, rules=[FAR_RULE])
    connection = await rig.connect(rig.target("far.test"))
    assert connection.refusal is not None
    assert connection.refusal.action == "deny"
    assert connection.refusal.reason.startswith("guarded")
    assert rig.server.nobody_came()


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_denied_look_up_is_a_name_that_is_not_found(make_rig: MakeRig, moment: str) -> None:
    it = Ears(**{moment: lambda event: event.deny("not_this_name")})
    later = Ears("later")
    rig = make_rig(it.entry(), later.entry(), lookup=lookup)
    connection = await rig.connect(rig.target("here.test"))
    assert connection.refusal is not None
    assert connection.refusal.reason == "not_this_name"
    assert connection.refusal.hint is ReplyHint.NAME_NOT_FOUND
    record = await rig.record()
    assert (record.action, record.filters) == ("deny", '[["it","denied","not_this_name"]]')
    assert len(later.heard) == (0 if moment == "before" else 1)
    assert rig.server.nobody_came()


@pytest.mark.parametrize("reason", ["No such thing!", "", "x" * 65, "a\nb"])
async def test_a_reason_that_is_none_is_replaced(make_rig: MakeRig, reason: str) -> None:
    rig = make_rig(Ears(before=lambda event: event.deny(reason)).entry())
    connection = await rig.connect(rig.target("here.test"))
    assert connection.refusal is not None
    assert connection.refusal.reason == "denied_by_filter"


async def test_an_event_is_over_when_its_handler_is(make_rig: MakeRig) -> None:
    first, second = Ears("first"), Ears("second", after=lambda _: _try_all(first.events))
    rig = make_rig(first.entry(), second.entry(), lookup=lookup)
    connection = await rig.connect(rig.target("here.test"))
    assert connection.refusal is None
    for event in first.events + second.events:
        for call in (lambda e=event: e.set_result("127.0.0.9"), event.deny):
            with pytest.raises(BadContext):
                call()
    assert connection.external_peer_name[0] == "127.0.0.1"


def _try_all(events: list[ResolveEvent]) -> None:
    """An earlier event is not this one, though the look-up is the same."""
    for event in events:
        try:
            event.set_result("192.0.2.99")
        except BadContext:
            continue
        event.results = ()


RUBBISH: list[Does] = [
    lambda event: event.set_result("example.org"),
    lambda event: event.set_result("127.0.0.1", ""),
    lambda event: event.set_result(5),  # type: ignore[arg-type]  # a mistake
    lambda event: event.set_result(b"\x7f\0\0\1"),  # type: ignore[arg-type]  # a mistake
    lambda event: event.set_result(None),  # type: ignore[arg-type]  # a mistake
    lambda event: event.set_result(*["127.0.0.1"] * 65),
    lambda event: setattr(event, "results", 7),
    lambda event: setattr(event, "results", None),
]


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize(
    ("does", "reason"),
    [*((rubbish, "filter_failed") for rubbish in RUBBISH), (ears.fail, "filter_failed"),
     (ears.hold, "filter_stalled"), (ears.wait, "filter_stalled")],
)  # fmt: skip
async def test_a_filter_that_fails_refuses_the_connection_unless_it_may_be_gone_on_without(
    make_rig: MakeRig, moment: str, does: Does, reason: str
) -> None:
    for fail in ("closed", "open"):
        it = Ears(**{moment: does})
        limits = Limits(event_timeout_s=0.1)
        rig = make_rig(it.entry(fail=fail), lookup=lookup, limits=limits, stall_s=0.1)
        connection = await rig.connect(rig.target("here.test"))
        assert connection.verdicts[0] == ("it", "failed", reason)
        assert [name for name, _ in rig.failures] == ["it"] * (
            2 if fail == "open" and len(rig.failures) > 1 else 1
        )
        if fail == "closed":
            assert connection.refusal is not None
            assert connection.refusal.reason == reason
        else:
            assert connection.refusal is None
        connection.kill()


async def test_refusing_on_purpose_is_a_denial_whatever_the_policy_says_of_failures(
    make_rig: MakeRig,
) -> None:
    def refuse(_: ResolveEvent) -> None:
        raise Refuse("never_this")

    rig = make_rig(Ears(before=refuse).entry(fail="open"))
    connection = await rig.connect(rig.target("here.test"))
    assert connection.refusal is not None
    assert (connection.refusal.action, connection.refusal.reason) == ("deny", "never_this")
    assert connection.refusal.hint is ReplyHint.NAME_NOT_FOUND
    assert rig.failures == []


async def test_an_empty_answer_is_a_name_that_is_not_found(make_rig: MakeRig) -> None:
    rig = make_rig(Ears(after=lambda event: event.set_result()).entry(), lookup=lookup)
    connection = await rig.connect(rig.target("here.test"))
    assert connection.refusal is not None
    assert (connection.refusal.reason, connection.refusal.hint) == (
        "name_not_found",
        ReplyHint.NAME_NOT_FOUND,
    )
    assert rig.failures == []


async def test_an_empty_answer_before_leaves_the_look_up_to_the_resolver(make_rig: MakeRig) -> None:
    rig = make_rig(Ears(before=lambda event: event.set_result()).entry(), lookup=lookup)
    assert (await rig.connect(rig.target("here.test"))).refusal is None


async def test_a_kill_while_a_filter_answers_ends_it(make_rig: MakeRig) -> None:
    asked = asyncio.Event()

    async def wait(_: ResolveEvent) -> None:
        asked.set()
        rig.engine.kill(next(iter(rig.engine.connections.values())), "shutdown")

    rig = make_rig(Ears(before=wait).entry(), lookup=lookup)
    connection = await rig.connect(rig.target("here.test"))
    assert connection.refusal is not None
    assert connection.refusal.reason == "shutdown"
    assert rig.server.nobody_came()


async def test_a_name_that_policy_refuses_in_any_case_is_never_looked_up(make_rig: MakeRig) -> None:
    it = Ears()
    rig = make_rig(it.entry(), rules=[Rule("no", Action.DENY)])
    assert (await rig.connect(rig.target("here.test"))).refusal is not None
    assert it.heard == []


async def test_two_connections_at_once_have_events_of_their_own(make_rig: MakeRig) -> None:
    waiting: list[asyncio.Event] = []

    async def wait(event: ResolveEvent) -> None:
        gate = asyncio.Event()
        waiting.append(gate)
        await gate.wait()
        event.set_result("127.0.0.1")

    rig = make_rig(Ears(before=wait).entry())
    results: list[Any] = []

    async def connect(name: str) -> None:
        results.append(await rig.connect(target_of(name, rig.server.port)))

    tasks = [rig.start(connect(name)) for name in ("one.test", "two.test")]
    await wait_for(lambda: len(waiting) == 2, "both ask")
    waiting[0].set()
    await tasks[0]
    assert results[0].refusal is None
    waiting[1].set()
    await tasks[1]
    assert results[1].refusal is None
