"""What a filter may ask of a connection."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.engine.filters import Copying
from tests.engine.rig import Plugin, Rig, entry

from doorward.api import (
    ConnectEvent,
    DataFilter,
    NotConnected,
    Priority,
    ReplyHint,
    Terminating,
)
from doorward.engine.target import target_of
from doorward.policy.model import UNKNOWN, Action, Rule, Unknown

pytestmark = pytest.mark.anyio

MakeRig = Callable[..., Rig]


async def test_external_names_are_not_known_before_the_outer_leg_stands(make_rig: MakeRig) -> None:
    errors: list[Exception] = []

    async def look(event: ConnectEvent) -> None:
        for name in ("external_peer_name", "external_socket_name"):
            with pytest.raises(NotConnected) as caught:
                getattr(event.connection, name)
            errors.append(caught.value)

    rig = make_rig(entry(Plugin("it", [], connect=look)))
    connection = await rig.connect()
    assert len(errors) == 2
    assert connection.external_peer_name == ("127.0.0.1", rig.server.port)


async def test_after_the_end_calls_say_that_it_is_over(make_rig: MakeRig) -> None:
    rig = make_rig(entry(Plugin("it", [])))
    connection = await rig.connect()
    connection.kill()
    connection.kill()
    with pytest.raises(Terminating):
        connection.deny()
    with pytest.raises(Terminating):
        connection.attach_data_filter(Copying())
    with pytest.raises(Terminating):
        _ = connection.external_socket_name


async def test_a_data_filter_gets_its_context_and_stands_where_it_was_put(make_rig: MakeRig) -> None:
    class Early(DataFilter):
        priority = Priority.NAT

    one, two, context = Early(), Early(), object()

    async def attach(event: ConnectEvent) -> None:
        event.connection.attach_data_filter(one, context=context)
        event.connection.attach_data_filter(two, Priority.EXTERNAL)

    rig = make_rig(entry(Plugin("it", [], connect=attach)))
    connection = await rig.connect()
    assert [(a.priority, a.data_filter, a.name) for a in connection.attached] == [
        (Priority.NAT, one, "it"),
        (Priority.EXTERNAL, two, "it"),
    ]
    assert one.context is context


async def test_filters_see_who_asks_and_why_it_is_allowed(make_rig: MakeRig) -> None:
    rig = make_rig()
    connection = await rig.connect(user="kim", client_address="192.0.2.9")
    assert (connection.session.user, connection.session.client_address) == ("kim", "192.0.2.9")
    decision = connection.decision
    assert (decision.reason, decision.rule, decision.policy) == ("rule_allow", "local", "revision")
    assert (connection.host, connection.port, connection.protocol) == (None, rig.server.port, None)


@pytest.mark.parametrize(
    ("user", "hint", "reason"),
    [
        (UNKNOWN, ReplyHint.NEEDS_USER, "needs_user"),
        (None, ReplyHint.NEEDS_USER, "user_needed"),
        ("lee", ReplyHint.NOT_ALLOWED, "default_deny"),
    ],
)
async def test_a_client_is_asked_who_it_is_only_if_that_can_help(
    make_rig: MakeRig, user: str | Unknown | None, hint: ReplyHint, reason: str
) -> None:
    rule = Rule("kim's", Action.ALLOW, users=frozenset({"kim"}))
    rig = make_rig(rules=[rule])
    connection = await rig.connect(target_of("192.0.2.1", 80), user=user)
    assert connection.refusal is not None
    assert (connection.refusal.hint, connection.refusal.reason) == (hint, reason)
