"""A session's object of a filter lives as long as both do, whatever the policy changes about the filter's settings."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

from msgspec.structs import replace
from tests.engine.rig import Plugin, entry

from doorward.engine.session import Session

if TYPE_CHECKING:
    from doorward.engine.association import FilterEntry
    from doorward.engine.engine import Engine


def session(*entries: FilterEntry) -> Session:
    """A session of an engine whose policy has these filters now."""
    ruling = SimpleNamespace(associations=SimpleNamespace(entries=entries))
    engine = cast("Engine", SimpleNamespace(ruling=ruling))
    return Session(1, "192.0.2.1", None, frozenset(), engine=engine)


def test_it_stays_when_only_the_settings_for_a_rule_change() -> None:
    before = entry(Plugin("a", []))
    after = replace(before, rule_settings={"web": 1}, off=frozenset({"mail"}))
    client = session(after)
    kept = client.filter_of(before)
    client.forget_filters(frozenset({after}))
    assert client.filter_of(after) is kept
    assert client.entry_of(kept) is after


def test_it_goes_with_its_filter() -> None:
    stays, leaves = entry(Plugin("a", [])), entry(Plugin("a", []))
    client = session(stays)
    kept, gone = client.filter_of(stays), client.filter_of(leaves)
    client.forget_filters(frozenset({stays}))
    assert (client.entry_of(kept), client.entry_of(gone)) == (stays, None)
    assert client.filter_of(leaves) is not gone
