"""A client may have so many connections and ask so often, and no other client is the worse for it."""

from __future__ import annotations

import pytest

from doorward.api.errors import ReplyHint
from doorward.config.model import Limits
from doorward.engine import admission
from doorward.engine.admission import MINUTE_S, Admission


class Clock:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_without_a_limit_nobody_is_refused() -> None:
    table = Admission(Clock())
    assert all(table.enter("192.0.2.1", Limits()) is None for _ in range(1000))


def test_one_connection_too_many_is_refused_until_one_has_ended() -> None:
    table, limits = Admission(Clock()), Limits(connections_per_client_max=2)
    assert table.enter("192.0.2.1", limits) is None
    assert table.enter("192.0.2.1", limits) is None
    refused = table.enter("192.0.2.1", limits)
    assert refused is not None
    assert (refused.action, refused.reason, refused.hint) == ("deny", "client_connections", ReplyHint.BUSY)
    assert "2" in refused.detail
    assert table.enter("192.0.2.2", limits) is None, "another client has its own count"
    table.leave("192.0.2.1")  # the refused one
    table.leave("192.0.2.1")
    assert table.enter("192.0.2.1", limits) is None


def test_a_limit_that_comes_with_a_reload_counts_those_that_are_there() -> None:
    table = Admission(Clock())
    for _ in range(3):
        table.enter("192.0.2.1", Limits())
    assert table.enter("192.0.2.1", Limits(connections_per_client_max=3)) is not None


def test_who_asks_too_often_waits_for_the_next_minute() -> None:
    clock = Clock()
    table, limits = Admission(clock), Limits(connects_per_minute_per_client_max=2)
    for _ in range(2):
        assert table.enter("192.0.2.1", limits) is None
        table.leave("192.0.2.1")
    refused = table.enter("192.0.2.1", limits)
    assert refused is not None
    assert refused.reason == "client_connect_rate"
    assert table.enter("192.0.2.2", limits) is None
    clock.now += MINUTE_S
    assert table.enter("192.0.2.1", limits) is None


def test_the_table_of_a_minute_has_a_cap_and_strangers_beyond_it_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(admission, "ADDRESSES_MAX", 1)
    table, limits = Admission(Clock()), Limits(connects_per_minute_per_client_max=5)
    assert table.enter("192.0.2.1", limits) is None
    assert table.enter("192.0.2.2", limits) is not None
    assert table.enter("192.0.2.1", limits) is None


def test_what_is_no_connection_counts_by_the_minute_alone() -> None:
    clock = Clock()
    table, limits = Admission(clock), Limits(connects_per_minute_per_client_max=2)
    assert all(table.may_ask("192.0.2.1", Limits()) for _ in range(9))
    assert table.enter("192.0.2.1", limits) is None
    assert [table.may_ask("192.0.2.1", limits) for _ in range(3)] == [True, False, False]
    assert table.may_ask("192.0.2.2", limits)
    clock.now += MINUTE_S
    assert table.may_ask("192.0.2.1", limits)
