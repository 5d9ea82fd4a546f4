from __future__ import annotations

import msgspec
from tests.record.samples import a_record

from doorward.record.tally import Tally
from doorward.service.status import Counts, Status, WorkerStatus, counts_of, shown_address


def test_addresses_are_shown_as_they_are_written() -> None:
    assert shown_address("127.0.0.1", 1080) == "127.0.0.1:1080"
    assert shown_address("::1", 1080) == "[::1]:1080"


def test_what_is_told_is_what_was_counted_and_survives_its_journey() -> None:
    tally = Tally()
    tally.add([a_record(1), a_record(2, action="deny"), a_record(3, action="fail")])
    counts = counts_of(tally)
    assert counts == Counts(1, 1, 1, 3 * 1234, 3 * 45_678)
    worker = WorkerStatus(worker=1, pid=7, state="serving", counts=counts)
    status = Status("1", "abc", "/p", 7, 1.5, "native", ["127.0.0.1:1"], ["f"], counts, [worker])
    assert msgspec.json.decode(msgspec.json.encode(status), type=Status) == status
