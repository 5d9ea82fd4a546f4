from __future__ import annotations

from tests.record.samples import a_record

from doorward.record.tally import Tally


def test_records_are_counted_by_what_was_answered_and_bytes_are_added_up() -> None:
    tally = Tally()
    tally.add([a_record(1), a_record(2, action="deny", bytes_sent=0, bytes_received=0)])
    tally.add([a_record(3, action="fail", bytes_sent=6, bytes_received=2), a_record(4)])
    assert (tally.records, tally.allowed, tally.denied, tally.failed) == (4, 2, 1, 1)
    assert (tally.bytes_sent, tally.bytes_received) == (2 * 1234 + 6, 2 * 45_678 + 2)


def test_what_destinations_of_a_mapping_carried_is_counted_once_with_the_mapping() -> None:
    tally = Tally()
    tally.add([a_record(1, operation="destination"), a_record(1, operation="udp")])
    assert (tally.records, tally.bytes_sent) == (2, 1234)
