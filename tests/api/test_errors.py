"""The tree of errors: what a filter author catches, what an operator reads, what a front end translates."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doorward import api
from doorward.api import DoorwardError, FilterError, LinkError, Refuse, ReplyHint, Side
from doorward.api.errors import SLUG_CHARACTERS_MAX, slug_or


def tree(kind: type[DoorwardError] = DoorwardError) -> Iterator[type[DoorwardError]]:
    yield kind
    for below in kind.__subclasses__():
        if below.__module__ == "doorward.api.errors":
            yield from tree(below)


EVERY = list(tree())


@pytest.mark.parametrize("kind", EVERY)
def test_every_error_can_be_imported_from_the_api_and_has_a_slug_and_a_hint(
    kind: type[DoorwardError],
) -> None:
    assert getattr(api, kind.__name__) is kind
    assert slug_or(kind.slug, "") == kind.slug
    assert isinstance(kind.hint, ReplyHint)
    assert kind.__doc__


@pytest.mark.parametrize("kind", EVERY)
def test_every_error_says_why_in_its_slug_and_in_words(kind: type[DoorwardError]) -> None:
    error = kind()
    assert error.reason == kind.slug
    assert str(error) == kind.slug
    assert error.side is Side.OURS


def test_an_error_carries_its_side_and_detail() -> None:
    error = api.PeerReset("Connection reset by peer", side=Side.EXTERNAL)
    assert (error.side, error.detail, str(error)) == (
        Side.EXTERNAL,
        "Connection reset by peer",
        "Connection reset by peer",
    )


def test_only_what_the_world_did_is_worth_another_try() -> None:
    assert {kind for kind in EVERY if kind.retry} <= set(tree(LinkError))
    assert not any(kind.retry for kind in tree(FilterError))


@pytest.mark.parametrize("reason", ["no", "not_today", "a-b", "x9", "0", "a" * SLUG_CHARACTERS_MAX])
def test_a_refusal_has_a_slug_of_the_filters_own(reason: str) -> None:
    error = Refuse(reason)
    assert (error.reason, error.detail) == (reason, reason)


@pytest.mark.parametrize(
    "reason",
    ["", "Not", "a b", "é", "a.b", "_", "-", "x\n", "\x1b[31m", "a" * (SLUG_CHARACTERS_MAX + 1), "٣"],
)
def test_what_is_no_slug_becomes_the_general_reason_and_stays_as_detail(reason: str) -> None:
    error = Refuse(reason)
    assert error.reason == "refused_by_filter"
    assert error.detail == reason or not reason


def test_a_refusals_detail_stands_beside_its_reason() -> None:
    error = Refuse("executable", "MZ at offset 0")
    assert (error.reason, str(error)) == ("executable", "MZ at offset 0")


@given(st.text())
def test_a_slug_can_be_shown_anywhere(text: str) -> None:
    slug = slug_or(text, "otherwise")
    assert slug in (text, "otherwise")
    assert slug.isascii()
    assert slug.isprintable()
    assert set(slug) <= set("abcdefghijklmnopqrstuvwxyz0123456789_-")
