from __future__ import annotations

import itertools
import sqlite3
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import astuple
from tests.record.samples import TEXT_FIELDS, a_record, everywhere

from doorward.api.errors import Side
from doorward.record import packets
from doorward.record.database import Database
from doorward.record.model import Record
from doorward.record.packets import (
    NUMBERS,
    PACKET_BYTES_MAX,
    ROWS_MAX,
    STARTS_MAX,
    BadPacket,
    first_number,
    packed,
    packed_rows,
    read_packet,
    read_receipt,
    receipt,
)

FIRST = first_number(3)
TEXTS = st.text(st.characters(codec="utf-8"), max_size=40)


def own(number: int, **changes: object) -> Record:
    """A record of the third process."""
    return a_record(**({"connection": FIRST + number, "session": FIRST, "parent": None} | changes))  # type: ignore[arg-type]


def sent(*records: Record) -> list[Record]:
    """What arrives of them, in as many packets as it takes."""
    arrived: list[Record] = []
    while len(arrived) < len(records):
        rows, count = packed_rows(records[len(arrived) :])
        packet = read_packet(packed(1, 1, rows), FIRST)
        assert len(packet.rows) == count
        arrived += packet.rows
    return arrived


def test_records_arrive_as_they_were_sent() -> None:
    records = [own(1), own(2, ended_by=Side.OURS, via=None), own(3, parent=FIRST + 1, detail="\0\u202e\n")]
    assert [astuple(row) for row in sent(*records)] == [astuple(record) for record in records]


@given(st.lists(st.dictionaries(st.sampled_from(TEXT_FIELDS), TEXTS), max_size=5))
def test_whatever_texts_they_hold_they_arrive(changes: list[dict[str, str]]) -> None:
    records = [own(number, **change) for number, change in enumerate(changes)]
    assert [astuple(row) for row in sent(*records)] == [astuple(record) for record in records]


@pytest.mark.parametrize(
    ("odd", "stored"),
    [
        ({"detail": "\ud800"}, "\\ud800"),
        ({"detail": 7}, "7"),
        ({"detail": [1]}, "[1]"),
        ({"bytes_sent": 2**70}, 2**63 - 1),
        ({"bytes_sent": "many"}, 0),
        ({"bytes_sent": True}, 0),
        ({"port": None}, 0),
        ({"connect_us": 1.5}, None),
        ({"reason": None}, "None"),
    ],
)
def test_what_cannot_be_stored_is_made_to_fit_and_costs_no_other_record(
    odd: dict[str, object], stored: object
) -> None:
    rows, count = packed_rows([own(1), own(2, **odd)])
    packet = read_packet(packed(1, 1, rows), FIRST)
    assert count == len(packet.rows) == 2
    assert astuple(packet.rows[0]) == astuple(own(1))
    assert [getattr(packet.rows[1], name) for name in odd] == [stored]


def test_an_object_of_a_filter_in_a_record_arrives_as_text() -> None:
    [row] = sent(own(1, detail=object()))
    assert str(row.detail).startswith("<object object")


def test_many_records_and_large_ones_take_several_packets() -> None:
    small = [own(number) for number in range(ROWS_MAX + 1)]
    assert packed_rows(small)[1] == ROWS_MAX
    large = [own(number, detail="x" * 60_000) for number in range(5)]
    rows, count = packed_rows(large)
    assert 1 <= count < 5
    assert len(packed(2**40, 2**40, rows)) <= PACKET_BYTES_MAX
    assert len(sent(*large)) == 5


def test_a_record_too_large_for_any_packet_is_clipped(tmp_path: Path) -> None:
    [row] = sent(own(1, **everywhere("\U0001f600" * 100_000)))
    assert row.detail == "\U0001f600" * 800
    database = Database(tmp_path / "log.db", 1)
    database.insert([row])
    database.close()
    [[connection]] = sqlite3.connect(tmp_path / "log.db").execute("SELECT connection FROM record").fetchall()
    assert connection == FIRST + 1


@pytest.mark.parametrize("name", ["connection", "session", "parent"])
@pytest.mark.parametrize("number", [1, FIRST - 1, FIRST + NUMBERS, -1, 2**63])
def test_nobody_speaks_for_another_process(name: str, number: int) -> None:
    rows, _ = packed_rows([own(1, **{name: number})])
    with pytest.raises(BadPacket):
        read_packet(packed(1, 1, rows), FIRST)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_packet_or_refused(data: bytes) -> None:
    for read in (lambda: read_packet(data, FIRST), lambda: read_receipt(data)):
        try:
            read()
        except BadPacket:
            pass


RIGHT = astuple(own(1))
ENCODE = msgspec.msgpack.encode


@pytest.mark.parametrize(
    "data",
    [
        b"",
        ENCODE((1, 1, [RIGHT[:-1]]))[:-1],  # cut
        ENCODE((1, 1, [RIGHT])) + b"\0",
        ENCODE((1, 1, [RIGHT[:5]])),
        ENCODE((1, 1, [(*RIGHT, None)])),
        ENCODE((1, 1, [{"time_us": 1}])),
        ENCODE((1, 1, RIGHT)),
        ENCODE(("1", 1, [RIGHT])),
        ENCODE((1, 1, [])),  # a batch of nothing
        ENCODE((1, 0, [RIGHT])),
        ENCODE((1, 1, [RIGHT] * (ROWS_MAX + 1))),
        ENCODE((1, 1, [RIGHT], "more")),
        ENCODE({"question": 1}),
        b"\x91" * 100_000,
        ENCODE((1, 1, [RIGHT], "x" * PACKET_BYTES_MAX)),
    ],
)
def test_what_has_another_shape_is_refused(data: bytes) -> None:
    with pytest.raises(BadPacket):
        read_packet(data, FIRST)


def test_numbers_of_different_processes_never_meet_and_every_reader_of_json_keeps_them() -> None:
    starts = [1, 2, 3, STARTS_MAX - 1, STARTS_MAX]
    firsts = [first_number(start) for start in starts]
    assert all(later - earlier >= NUMBERS for earlier, later in itertools.pairwise(firsts))
    assert firsts[0] > NUMBERS  # those of a firewall without workers are smaller
    assert firsts[-1] + NUMBERS <= 2**53
    assert first_number(STARTS_MAX + 1) == firsts[0]


def test_a_receipt_says_why_not_within_its_limit() -> None:
    assert read_receipt(receipt(7, None)).failure is None
    data = receipt(7, "\ud800 no space" * 1000)
    assert len(data) <= packets.RECEIPT_BYTES_MAX
    assert "no space" in str(read_receipt(data).failure)
