from __future__ import annotations

import shutil
import socket
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.record.desks import PATIENCE_S, Office, office
from tests.record.samples import a_record, settings

from doorward.record import desk as desk_module
from doorward.record.desk import RecordDesk
from doorward.record.model import StoreError, StoreInUse
from doorward.record.packets import Receipt, first_number, packed, packed_rows, read_receipt


def batch(question: int, number: int, *connections: int, start: int = 1) -> bytes:
    first = first_number(start)
    rows, _ = packed_rows([a_record(first + connection, session=first) for connection in connections])
    return packed(question, number, rows)


def asked(worker: socket.socket, data: bytes) -> Receipt:
    worker.send(data)
    return read_receipt(worker.recv(1 << 16))


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.002)


def test_what_is_confirmed_is_on_disk(tmp_path: Path) -> None:
    with office(tmp_path) as here, here.worker() as worker:
        for number in range(1, 4):
            assert asked(worker, batch(number, number, number)) == Receipt(number)
            assert here.connections() == [first_number(1) + done for done in range(1, number + 1)]


def test_a_batch_that_comes_twice_is_written_once(tmp_path: Path) -> None:
    with office(tmp_path) as here, here.worker() as worker:
        for question in (1, 2, 3):
            assert asked(worker, batch(question, 1, 7)) == Receipt(question)
        assert here.connections() == [first_number(1) + 7]
        assert here.desk.tally.records == 1


def test_several_workers_write_one_log_and_none_speaks_for_another(tmp_path: Path) -> None:
    with office(tmp_path) as here, here.worker(1) as one, here.worker(2) as two:
        assert asked(one, batch(1, 1, 1)).failure is None
        assert asked(two, batch(1, 1, 1, start=2)).failure is None
        two.send(batch(2, 2, 2, start=1))
        assert two.recv(100) == b""
        assert asked(one, batch(2, 2, 2)).failure is None
        assert here.connections() == [first_number(1) + 1, first_number(2) + 1, first_number(1) + 2]
        [(start, _)] = here.breaches
        assert start == 2


@pytest.mark.parametrize("data", [b"nonsense", batch(1, 2, 1), b"x" * 200_000])
def test_who_sends_what_is_no_batch_is_heard_no_more(tmp_path: Path, data: bytes) -> None:
    with office(tmp_path) as here, here.worker() as worker, here.worker(2) as other:
        worker.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        worker.send(data[: 1 << 17] + b"x" if len(data) > 1 << 17 else data)
        assert worker.recv(100) == b""
        assert [start for start, _ in here.breaches] == [1]
        assert asked(other, batch(1, 1, 1, start=2)).failure is None


def test_descriptors_that_come_along_are_not_taken(tmp_path: Path) -> None:
    with office(tmp_path) as here, here.worker() as worker:
        before = descriptors()
        for number in range(1, 50):
            socket.send_fds(worker, [batch(number, number, number)], [0, 1, 2])
            assert read_receipt(worker.recv(1 << 16)).failure is None
        assert descriptors() <= before + 2


def test_the_last_batches_of_a_worker_that_died_are_written(tmp_path: Path) -> None:
    with office(tmp_path) as here:
        worker = here.worker()
        for number in (1, 2, 3):
            worker.send(batch(number, number, number))
        worker.close()
        assert here.desk.close(PATIENCE_S)
        assert len(here.connections()) == 3


def test_a_log_that_is_gone_fails_for_everybody_and_recovers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk_module, "RETRY_INTERVAL_S", 0.01)
    monkeypatch.setattr(desk_module, "UPKEEP_INTERVAL_S", 0.01)
    home = tmp_path / "log"
    home.mkdir()
    with office(home) as here, here.worker(1) as one, here.worker(2) as two:
        assert asked(one, batch(1, 1, 1)).failure is None
        shutil.rmtree(home)
        home.write_text("in the way")
        question = iter(range(2, 10_000))
        failure = asked(one, batch(next(question), 2, 2)).failure
        assert failure
        wait_for(lambda: asked(two, packed(next(question), 0, b"\x90")).failure is not None)
        home.unlink()
        wait_for(lambda: asked(two, packed(next(question), 0, b"\x90")).failure is None)
        wait_for(lambda: asked(one, batch(next(question), 2, 2)).failure is None)
        assert here.connections() == [first_number(1) + 2]


def test_a_second_desk_keeps_its_hands_off_the_log(tmp_path: Path) -> None:
    with office(tmp_path):
        second = Office(tmp_path)
        with pytest.raises(StoreInUse):
            second.desk.start()
        assert second.desk.close()


@pytest.mark.parametrize("on_failure", ["closed", "open"])
def test_a_log_that_cannot_be_made_prevents_the_start_unless_the_policy_says_otherwise(
    tmp_path: Path, on_failure: Any
) -> None:
    (tmp_path / "file").write_text("")
    desk = RecordDesk(settings(tmp_path / "file" / "below", on_failure=on_failure))
    if on_failure == "closed":
        with pytest.raises(StoreError):
            desk.start()
    else:
        desk.start()
        assert desk.failure
    desk.close()


def test_files_are_ended_and_begun_while_batches_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk_module, "UPKEEP_INTERVAL_S", 0.001)
    with office(tmp_path, file_bytes_max=30_000) as here, here.worker() as worker:
        for number in range(1, 30):
            assert asked(worker, batch(number, number, *range(number * 20, number * 20 + 20))).failure is None
        assert here.desk.close(0.1) is False  # a worker is still there
        assert len(list(tmp_path.glob("doorward-*.db"))) >= 2
        assert len(here.connections()) == 29 * 20


def test_who_does_not_read_receipts_holds_up_nobody(tmp_path: Path) -> None:
    with office(tmp_path) as here, here.worker(1) as deaf, here.worker(2) as other:
        deaf.setblocking(False)
        for question in range(1, 5_000):
            try:
                deaf.send(packed(question, 0, b"\x90"))
            except BlockingIOError:
                pass
        assert asked(other, batch(1, 1, 1, start=2)).failure is None


def test_nothing_is_left_open(tmp_path: Path) -> None:
    before = descriptors()
    threads = threading.active_count()
    for _ in range(3):
        with office(tmp_path) as here:
            workers = [here.worker(start) for start in (1, 2)]
            assert asked(workers[0], batch(1, 1, 1)).failure is None
            workers[0].close()
            here.desk.close(0.1)
            here.worker(3).close()  # too late
            workers[1].close()
    never = RecordDesk(settings(tmp_path))
    never.close()
    assert descriptors() == before
    assert threading.active_count() == threads
    sqlite3.connect(tmp_path / "doorward.db").close()
