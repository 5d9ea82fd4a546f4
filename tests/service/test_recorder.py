from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
from tests.record.samples import a_record

from doorward.config.model import LogSettings
from doorward.record.model import Record
from doorward.record.store import RecordStore
from doorward.service.recorder import StoreRecorder


class Store:
    """What a recorder sees of the store."""

    def __init__(self) -> None:
        self.failure: str | None = None
        self.full = False
        self.records: list[Record] = []

    def append(self, record: Record) -> None:
        self.records.append(record)


def recorder(store: Store, **settings: Any) -> StoreRecorder:
    return StoreRecorder(cast(RecordStore, store), LogSettings(Path("log.db"), **settings))


def test_records_go_to_the_store() -> None:
    store = Store()
    recorder(store).append(a_record())
    assert store.records == [a_record()]


@pytest.mark.parametrize(
    ("failure", "full"), [("no space left", False), (None, True), ("no space left", True)]
)
def test_closed_refuses_while_a_record_could_be_lost_and_open_does_not(
    failure: str | None, full: bool
) -> None:
    store = Store()
    closed, open_ = recorder(store, on_failure="closed"), recorder(store, on_failure="open")
    assert closed.refuses() is None
    store.failure, store.full = failure, full
    assert closed.refuses()
    assert open_.refuses() is None
    store.failure, store.full = None, False
    assert closed.refuses() is None
