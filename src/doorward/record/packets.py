"""Batches of records on their way from a worker to the process that writes them, and the answers.

Packets of a local socket that keeps their borders (SOCK_SEQPACKET). The side that reads trusts nothing in them: what is
not of this shape, or is not the sender's to say, is refused, and nothing that is read can run code.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, get_args

import msgspec
from msgspec.structs import astuple, fields

from doorward.record.database import CLIPPED_CHARACTERS_MAX, mend
from doorward.record.model import Record

ROWS_MAX: Final = 256
"""Records in one packet: putting them together keeps the interpreter's lock for well under a millisecond."""
PACKET_BYTES_MAX: Final = 128 * 1024
"""Fits into a socket's buffer of the usual size (net.core.wmem_default, 208 KiB). A mended record takes 58 KiB."""
RECEIPT_BYTES_MAX: Final = 8 * 1024
FAILURE_CHARACTERS_MAX: Final = 1_000
NUMBERS: Final = 10**12
"""Numbers of connections, and of sessions, that one process may use: 6 years of 5,000 connections a second."""
STARTS_MAX: Final = 9_000
"""Processes after which their numbers are used again: all of them are whole numbers for every reader of JSON."""


class BadPacket(Exception):
    """What came is no packet of ours, or says what the sender cannot know."""


class Row(Record, array_like=True, forbid_unknown_fields=True):
    """A record as it travels: its fields in their order, without their names."""


class Packet(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """`question` is never the same twice; `number` is, for a batch that is sent again; 0, without rows, asks only."""

    question: int
    number: int
    rows: list[Row]


class Receipt(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """The answer to a question: it is on disk, or why not."""

    question: int
    failure: str | None = None


_encoder = msgspec.msgpack.Encoder()
_packets = msgspec.msgpack.Decoder(Packet)
_receipts = msgspec.msgpack.Decoder(Receipt)


def first_number(start: int) -> int:
    """Where the process that was the `start`-th to be started (from 1) begins to count its connections."""
    return ((start - 1) % STARTS_MAX + 1) * NUMBERS + 1


def packed_rows(records: Sequence[Record]) -> tuple[bytes, int]:
    """The rows of as many of these records as fit into a packet, one at least, and how many these are."""
    count = min(len(records), ROWS_MAX)
    while True:
        rows = _encoded(records[:count])
        if len(rows) <= PACKET_BYTES_MAX - 32:
            return rows, count
        if count == 1:
            return _encoder.encode([mend(astuple(records[0]))]), 1
        count //= 2


def packed(question: int, number: int, rows: bytes) -> bytes:
    """A whole packet."""
    return _encoder.encode((question, number, msgspec.Raw(rows)))


def read_packet(data: bytes, first_id: int) -> Packet:
    """A packet of the process that counts from `first_id`. Raises BadPacket."""
    if len(data) > PACKET_BYTES_MAX:
        raise BadPacket(f"more than {PACKET_BYTES_MAX} bytes")
    try:
        packet = _packets.decode(data)
    except msgspec.ValidationError:
        packet = _mended(data)
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadPacket(str(error)) from None
    if len(packet.rows) > ROWS_MAX or (packet.number == 0) != (not packet.rows):
        raise BadPacket(f"{len(packet.rows)} records in batch {packet.number}")
    for row in packet.rows:
        for number in (row.connection, row.session, row.parent):
            if number and not first_id <= number < first_id + NUMBERS:
                raise BadPacket(f"the number {number} is not its own")
    return packet


def receipt(question: int, failure: str | None) -> bytes:
    """An answer as it travels."""
    shown = None if failure is None else failure[:FAILURE_CHARACTERS_MAX].encode(errors="replace").decode()
    return _encoder.encode(Receipt(question, shown))


def read_receipt(data: bytes) -> Receipt:
    """An answer. Raises BadPacket."""
    try:
        return _receipts.decode(data)
    except msgspec.DecodeError as error:
        raise BadPacket(str(error)) from None


def _mended(data: bytes) -> Packet:
    """A packet with values of a wrong kind in its records, which a filter may have brought in: they are made to fit.

    Raises BadPacket if more than that is wrong.
    """
    try:
        question, number, rows = msgspec.convert(
            msgspec.msgpack.decode(data), tuple[int, int, list[list[Any]]]
        )
        return Packet(question, number, [_fitting(row) for row in rows])
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise BadPacket(str(error)) from None


def _fitting(row: list[Any]) -> Row:
    """Raises ValueError unless there is a value for every field."""
    fitting: dict[str, Any] = {}
    for (name, (kind, may_be_missing)), value in zip(_KINDS.items(), row, strict=True):
        if type(value) is kind or (value is None and may_be_missing):
            fitting[name] = value
        elif kind is str:
            fitting[name] = repr(value)[:CLIPPED_CHARACTERS_MAX]
        else:
            fitting[name] = None if may_be_missing else 0
    return Row(**fitting)


def _kind(annotation: Any) -> tuple[type, bool]:
    """Of one field: number or text, and whether there may be none."""
    kinds = get_args(annotation) or (annotation,)
    return (int if int in kinds else str), type(None) in kinds


_KINDS: Final = {field.name: _kind(field.type) for field in fields(Row)}


def _encoded(records: Sequence[Record]) -> bytes:
    rows = [astuple(record) for record in records]
    try:
        return _encoder.encode(rows)
    except (UnicodeError, OverflowError, TypeError):  # what SQLite would not take either
        return _encoder.encode([mend(row) for row in rows])
