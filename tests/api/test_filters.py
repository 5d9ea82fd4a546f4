"""What filter authors subclass: sensible as it is, and helpful where it must be filled in."""

from __future__ import annotations

from typing import Any, cast

import pytest

from doorward.api import (
    ANY,
    ApplicationFilter,
    ClientKind,
    ConnectEvent,
    DataFilter,
    EstablishedEvent,
    EventKind,
    Interest,
    Priority,
    Scope,
    SessionFilter,
    StreamFilter,
    TerminatingEvent,
)

pytestmark = pytest.mark.anyio

NOTHING = cast(Any, None)


def test_without_a_word_a_filter_hears_of_every_connect() -> None:
    assert Interest() == Interest.of() == Interest.of(ANY)
    assert Interest().events == {EventKind.CONNECT}
    assert Interest().clients == set(ClientKind) - {ClientKind.FILTER}
    assert Interest().scope is Scope.PRIMARY


def test_an_interest_is_a_value() -> None:
    interest = Interest.of("http", "tcp/8080", events=[EventKind.ESTABLISHED], clients=[ClientKind.SOCKS])
    assert interest == Interest(
        ("http", "tcp/8080"), frozenset({EventKind.ESTABLISHED}), frozenset({ClientKind.SOCKS})
    )
    assert hash(interest) == hash(Interest.of("http", "tcp/8080", events=["established"], clients=["socks"]))  # type: ignore[list-item]  # the words mean the same


def test_settings_default_to_nothing() -> None:
    assert ApplicationFilter().settings == {}
    assert ApplicationFilter({"a": 1}).settings == {"a": 1}
    assert DataFilter().settings == {}


async def test_an_application_filter_may_leave_start_and_stop_alone_but_not_its_session_filter() -> None:
    class Half(ApplicationFilter):
        pass

    await Half().start(NOTHING)
    await Half().stop()
    with pytest.raises(NotImplementedError, match="Half must define session_filter"):
        Half().session_filter(NOTHING)


async def test_a_session_filter_may_leave_every_event_alone() -> None:
    listener = SessionFilter()
    await listener.on_connect(ConnectEvent(NOTHING, None, "192.0.2.1", 80, None))
    await listener.on_established(EstablishedEvent(NOTHING))
    await listener.on_terminating(TerminatingEvent(NOTHING, 0, 0, "closed"))


async def test_a_data_filter_without_a_pump_says_so() -> None:
    class Empty(DataFilter):
        pass

    with pytest.raises(NotImplementedError, match="Empty must define pump"):
        await Empty().pump(NOTHING, NOTHING, NOTHING)


async def test_a_stream_filter_is_not_pumped_by_hand() -> None:
    with pytest.raises(NotImplementedError):
        await StreamFilter().pump(NOTHING, NOTHING, NOTHING)


def test_a_stream_filter_as_it_is_changes_nothing() -> None:
    plain = StreamFilter()
    plain.start()
    assert (plain.client_data(b"a"), plain.server_data(b"b")) == (b"a", b"b")
    assert (plain.client_end(), plain.server_end()) == (b"", b"")
    assert plain.finished is False


def test_seen_enough_is_of_one_object_and_not_of_its_class() -> None:
    one, two = StreamFilter(), StreamFilter()
    one.seen_enough()
    assert (one.finished, two.finished) == (True, False)


def test_places_in_a_chain_run_from_the_client_to_the_server() -> None:
    assert [place.name for place in sorted(Priority)] == [
        "NAT",
        "INTERNAL",
        "POST_TRUST",
        "MIDDLE",
        "PRE_TRUST",
        "EXTERNAL",
        "EMULATION",
    ]
    assert DataFilter.priority is Priority.MIDDLE
