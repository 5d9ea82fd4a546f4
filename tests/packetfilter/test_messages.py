"""What the helper reads, and what it does not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.packetfilter.tables import HOLE, HOLE6, WEB, table_of

from doorward.packetfilter.messages import (
    LENGTH,
    BadMessage,
    Change,
    Count,
    Load,
    Message,
    Opening,
    Refused,
    packed,
    read_reply,
    read_request,
)
from doorward.packetfilter.model import Case, Element, Table

TABLE = table_of(WEB)
replace = msgspec.structs.replace


def body(message: Message) -> bytes:
    data = packed(message)
    assert LENGTH.unpack(data[:4]) == (len(data) - 4,)
    return data[4:]


def test_requests_arrive_as_they_were_sent() -> None:
    for request in (
        Load(1, TABLE, (Opening(HOLE, 30.0),)), Change(2, (Opening(HOLE6, 0.5),), (HOLE,)), Count(3),
    ):  # fmt: skip
        assert read_request(body(request)) == request
    assert read_reply(body(Refused(3, "no", (HOLE,)))) == Refused(3, "no", (HOLE,))


@given(st.binary(max_size=200))
def test_noise_is_no_message(noise: bytes) -> None:
    for read in (read_request, read_reply):
        try:
            read(noise)
        except BadMessage:
            pass


def test_what_is_cut_is_no_message() -> None:
    whole = body(Load(1, TABLE, (Opening(HOLE, 30.0),)))
    for length in range(0, len(whole), 97):
        with pytest.raises(BadMessage):
            read_request(whole[:length])
    with pytest.raises(BadMessage):
        read_request(whole + b" x")


BAD: dict[str, Callable[[Table], Table]] = {
    "loop": lambda t: replace(t, steps=(replace(t.steps[0], otherwise=-1), *t.steps[1:])),
    "outcome": lambda t: replace(t, steps=(replace(t.steps[0], otherwise=999), *t.steps[1:])),
    "order": lambda t: replace(
        t, steps=(replace(t.steps[0], cases=(Case(9, 9, 0), Case(5, 6, 0))), *t.steps[1:])
    ),
    "beyond": lambda t: replace(t, steps=(replace(t.steps[0], cases=(Case(0, 2**128, 0),)), *t.steps[1:])),
    "entrances": lambda t: replace(t, entrances=t.entrances[1:]),
    "twice": lambda t: replace(t, entrances=(t.entrances[1], *t.entrances[1:])),
    "nowhere": lambda t: replace(t, entrances=(replace(t.entrances[0], target=-999), *t.entrances[1:])),
    "name": lambda t: replace(t, outcomes=(*t.outcomes, replace(t.outcomes[0], rule="x" * 999))),
}
BAD_CAPTURES: dict[str, dict[str, Any]] = {
    "networks": {"networks": ()},
    "network": {"networks": ("example.org",)},
    "kept": {"keep_source": ("$(reboot)",)},
    "interface": {"interfaces": ('x" accept #',)},
    "long interface": {"interfaces": ("x" * 16,)},
    "port": {"tcp_port": 0},
    "mark": {"mark": 2**32 - 1},
    "group": {"log_group": 70_000},
}


@pytest.mark.parametrize("spoil", BAD.values(), ids=BAD)
def test_a_table_that_leads_nowhere_or_in_circles_is_not_loaded(spoil: Callable[[Table], Table]) -> None:
    with pytest.raises(BadMessage):
        read_request(body(Load(1, spoil(TABLE))))


@pytest.mark.parametrize("fields", BAD_CAPTURES.values(), ids=BAD_CAPTURES)
def test_what_is_captured_can_be_nothing_but_what_it_is(fields: dict[str, Any]) -> None:
    with pytest.raises(BadMessage):
        read_request(body(Load(1, replace(TABLE, capture=replace(TABLE.capture, **fields)))))


@pytest.mark.parametrize(
    "element",
    [
        replace(HOLE, first="10.2.0.3"),
        replace(HOLE, last="fd02::1"),
        replace(HOLE, address="fd02::1"),
        replace(HOLE, first="example.org", last="example.org"),
        replace(HOLE, port=0),
        replace(HOLE, port=65_536),
        replace(HOLE6, last="fd02::1%eth0"),
    ],
)
def test_what_is_no_opening_is_not_opened(element: Element) -> None:
    for request in (Change(1, (Opening(element, 1.0),)), Change(1, (), (element,))):
        with pytest.raises(BadMessage):
            read_request(body(request))


@pytest.mark.parametrize("lease_s", [0.0, -1.0, 1e9])
def test_a_lease_has_its_limits(lease_s: float) -> None:
    with pytest.raises(BadMessage):
        read_request(body(Change(1, (Opening(HOLE, lease_s),))))
