"""The store as the firewall sees it: nothing waits for the disk, and nothing is lost without a word."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.record import format_1
from tests.record.samples import Clock, Events, a_record, settings

from doorward.record import store as store_module
from doorward.record.model import StoreError, StoreInUse, StoreUnknown
from doorward.record.query import Query
from doorward.record.reader import read
from doorward.record.store import QUEUE_MAX, RecordStore

PATIENCE_S = 10.0


class Disk:
    """Stands in for sqlite3.connect: a disk that can be made full, or slow until it is told to go on."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.ready = threading.Event()
        self.ready.set()

    def connect(self, *arguments: Any, **options: Any) -> sqlite3.Connection:
        disk = self

        class Connection(sqlite3.Connection):
            def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
                if sql.startswith("INSERT INTO record"):
                    assert disk.ready.wait(PATIENCE_S)
                    if disk.error is not None:
                        raise disk.error
                return super().execute(sql, parameters)

        return sqlite3.connect(*arguments, factory=Connection, **options)


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
def events() -> Events:
    return Events()


@pytest.fixture
def begin(
    tmp_path: Path, disk: Disk, events: Events, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., RecordStore]]:
    monkeypatch.setattr(store_module, "RETRY_FIRST_S", 0.01)
    monkeypatch.setattr(store_module, "RETRY_MAX_S", 0.01)
    monkeypatch.setattr(store_module, "WRITE_INTERVAL_S", 0.01)
    stores = []

    def begin(**changes: Any) -> RecordStore:
        stores.append(
            RecordStore(
                settings(tmp_path, **changes), on_event=events, clock_us=Clock(), connect=disk.connect
            )
        )
        return stores[-1]

    yield begin
    disk.ready.set()
    disk.error = None
    for store in stores:
        store.close()


def connections(directory: Path) -> list[int]:
    return [record.connection for record in read(directory / "doorward.db", Query(), newest_first=False)]


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.002)


def test_what_was_appended_is_on_disk_after_a_flush(
    tmp_path: Path, begin: Callable[..., RecordStore]
) -> None:
    store = begin()
    store.append(a_record(0))  # before the start is no mistake
    store.start()
    for number in range(1, 20_000):
        store.append(a_record(number))
    assert store.flush(PATIENCE_S)
    assert connections(tmp_path) == list(range(20_000))
    assert (store.written, store.waiting, store.lost, store.healthy) == (20_000, 0, 0, True)


def test_closing_writes_what_waits_and_is_harmless_when_repeated(
    tmp_path: Path, begin: Callable[..., RecordStore]
) -> None:
    store = begin()
    store.start()
    store.append(a_record(1))
    assert store.close()
    assert store.close()
    assert connections(tmp_path) == [1]
    store.append(a_record(2))
    assert store.full
    assert store.lost == 1


def test_a_store_that_was_never_started_closes(begin: Callable[..., RecordStore]) -> None:
    store = begin()
    assert store.close()
    unwritten = begin()
    unwritten.append(a_record())
    assert not unwritten.close()
    assert unwritten.lost == 1


def test_rotation_can_be_asked_for(tmp_path: Path, begin: Callable[..., RecordStore]) -> None:
    store = begin()
    store.start()
    store.append(a_record(1))
    store.rotate()
    assert store.flush(PATIENCE_S)
    assert len(list(tmp_path.glob("doorward-*.db"))) == 1
    assert connections(tmp_path) == [1]


def test_a_full_disk_is_told_at_once_and_overcome_without_loss(
    tmp_path: Path, begin: Callable[..., RecordStore], disk: Disk, events: Events
) -> None:
    store = begin()
    store.start()
    disk.error = sqlite3.OperationalError("database or disk is full")
    store.append(a_record(1))
    wait_for(lambda: not store.healthy)
    assert store.failure == f"cannot write the log {tmp_path}/doorward.db: database or disk is full"
    store.append(a_record(2))
    disk.error = None
    assert store.flush(PATIENCE_S)
    assert store.healthy
    assert connections(tmp_path) == [1, 2]
    assert events.names == ["record_store_failed", "record_store_recovered"]


@pytest.mark.parametrize(
    "error",
    [
        sqlite3.OperationalError("database is locked"),
        OSError(errno.EIO, "I/O"),
        RuntimeError("our own mistake"),
    ],
)
def test_no_error_ends_the_thread(
    tmp_path: Path, begin: Callable[..., RecordStore], disk: Disk, error: Exception
) -> None:
    store = begin()
    store.start()
    disk.error = error
    store.append(a_record(1))
    wait_for(lambda: not store.healthy)
    disk.error = None
    assert store.flush(PATIENCE_S)
    assert connections(tmp_path) == [1]


def test_a_full_queue_loses_what_comes_and_counts_it(
    tmp_path: Path, begin: Callable[..., RecordStore], disk: Disk, events: Events
) -> None:
    store = begin()
    store.start()
    disk.error = sqlite3.OperationalError("database or disk is full")
    record = a_record()
    for _ in range(QUEUE_MAX):
        store.append(record)
    assert (store.full, store.lost) == (True, 0)
    for _ in range(7):
        store.append(record)
    assert (store.full, store.lost) == (True, 7)
    disk.error = None
    assert store.flush(PATIENCE_S)
    assert (store.full, store.lost, store.written) == (False, 7, QUEUE_MAX)
    assert sum(int(str(fields["count"])) for name, fields in events.told if name == "records_lost") == 7


def test_appending_does_not_wait_for_a_disk_that_stands_still(
    begin: Callable[..., RecordStore], disk: Disk
) -> None:
    store = begin()
    store.start()
    disk.ready.clear()
    for number in range(10_000):
        store.append(a_record(number))
    assert store.waiting == 10_000
    assert not store.flush(0.02)
    disk.ready.set()
    assert store.flush(PATIENCE_S)


def test_closing_keeps_its_deadline_and_counts_what_is_lost(
    begin: Callable[..., RecordStore], disk: Disk
) -> None:
    store = begin()
    store.start()
    disk.ready.clear()
    store.append(a_record())
    assert not store.close(timeout_s=0.05)
    assert store.lost == 1


def test_closing_gives_a_failing_disk_until_the_deadline_and_tells_what_is_lost(
    begin: Callable[..., RecordStore], disk: Disk, events: Events
) -> None:
    store = begin()
    store.start()
    disk.error = sqlite3.OperationalError("database or disk is full")
    store.append(a_record())
    assert not store.close(timeout_s=0.2)
    assert store.lost == 1
    assert not store.healthy
    assert not store.close(timeout_s=0.2)
    assert [told for told in events.told if told[0] == "records_lost"] == [("records_lost", {"count": 1})]


def test_a_directory_that_is_gone_is_made_again(tmp_path: Path, begin: Callable[..., RecordStore]) -> None:
    store = begin(path=tmp_path / "var" / "doorward.db")
    store.start()
    shutil.rmtree(tmp_path / "var")
    store.append(a_record(1))
    assert store.flush(PATIENCE_S)
    assert connections(tmp_path / "var") == [1]


def test_a_second_store_on_the_same_file_does_not_start(begin: Callable[..., RecordStore]) -> None:
    begin().start()
    with pytest.raises(StoreInUse, match="another process is writing"):
        begin(on_failure="open").start()


def test_an_unknown_version_does_not_start(tmp_path: Path, begin: Callable[..., RecordStore]) -> None:
    connection = sqlite3.connect(tmp_path / "doorward.db")
    connection.execute("PRAGMA user_version = 7")
    connection.close()
    with pytest.raises(StoreUnknown):
        begin(on_failure="open").start()


def test_trouble_at_the_start_is_an_error_or_waited_out_as_configured(
    tmp_path: Path, begin: Callable[..., RecordStore]
) -> None:
    obstacle = tmp_path / "var"
    obstacle.write_text("not a directory")
    with pytest.raises(StoreError, match=r"cannot write the log .*doorward\.db"):
        begin(path=obstacle / "doorward.db").start()
    store = begin(path=obstacle / "doorward.db", on_failure="open")
    store.start()
    assert not store.healthy
    store.append(a_record(1))
    obstacle.unlink()
    assert store.flush(PATIENCE_S)
    assert connections(obstacle) == [1]


CHILD = """
import sys, time
from pathlib import Path
from doorward.config.model import LogSettings
from doorward.record.store import RecordStore
from tests.record.samples import a_record

store = RecordStore(LogSettings(path=Path(sys.argv[1])))
store.start()
number = 0
while True:
    for _ in range(20):
        number += 1
        store.append(a_record(number, time_us=time.monotonic_ns() // 1000))
    print(number, time.monotonic_ns() // 1000, flush=True)
    time.sleep(0.002)
"""


def child(tmp_path: Path, program: str) -> subprocess.Popen[str]:
    root = Path(__file__).resolve().parents[2]
    environment = os.environ | {"PYTHONPATH": f"{root / 'src'}:{root}"}
    return subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "doorward.db")],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )


def test_a_killed_process_loses_the_last_second_at_most(tmp_path: Path) -> None:
    with child(tmp_path, CHILD) as process:
        assert process.stdout is not None
        acknowledged: list[tuple[int, int]] = []
        for line in process.stdout:
            number, time_us = line.split()
            acknowledged.append((int(number), int(time_us)))
            if acknowledged[-1][1] - acknowledged[0][1] > 1_700_000:
                process.send_signal(signal.SIGKILL)
                break
    kept = connections(tmp_path)
    killed_us = acknowledged[-1][1]
    promised = [number for number, time_us in acknowledged if time_us < killed_us - 1_000_000]
    assert kept == list(range(1, len(kept) + 1))
    assert len(promised) > 100 // 20
    assert len(kept) >= promised[-1]
    # And the store goes on from there.
    store = RecordStore(settings(tmp_path))
    store.start()
    store.append(a_record(len(kept) + 1))
    assert store.close()
    assert connections(tmp_path) == list(range(1, len(kept) + 2))


UPGRADING_CHILD = """
import os, signal, sqlite3, sys
from pathlib import Path
from doorward.record.database import Database

class Dying(sqlite3.Connection):
    def execute(self, sql, parameters=()):
        if sql.startswith("PRAGMA user_version = "):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().execute(sql, parameters)

Database(Path(sys.argv[1]), 1, lambda *args, **kwargs: sqlite3.connect(*args, factory=Dying, **kwargs))
"""


def test_a_process_killed_while_it_upgrades_the_file_leaves_a_store_that_goes_on(
    tmp_path: Path, begin: Callable[..., RecordStore]
) -> None:
    format_1.write(tmp_path / "doorward.db", [a_record(1)])
    with child(tmp_path, UPGRADING_CHILD) as process:
        assert process.wait(PATIENCE_S) == -signal.SIGKILL
    assert connections(tmp_path) == [1]
    store = begin()
    store.start()
    store.append(a_record(2, operation="bind"))
    assert store.flush(PATIENCE_S)
    assert connections(tmp_path) == [1, 2]


FULL_DISK_CHILD = """
import resource, signal, sys
from pathlib import Path
from doorward.config.model import LogSettings
from doorward.record.store import RecordStore
from tests.record.samples import a_record

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
store = RecordStore(LogSettings(path=Path(sys.argv[1])))
store.start()
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
for number in range(5000):
    store.append(a_record(number))
print(store.flush(1.2), store.failure, flush=True)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(store.flush(8), store.failure, store.lost, flush=True)
"""


def test_a_file_that_really_cannot_grow_fails_and_recovers_without_loss(tmp_path: Path) -> None:
    with child(tmp_path, FULL_DISK_CHILD) as process:
        output, _ = process.communicate(timeout=15)
    failed, recovered = output.splitlines()
    assert failed.startswith("False cannot write the log")
    assert recovered == "True None 0"
    assert connections(tmp_path) == list(range(5000))
