"""Logs of launches beside another firewall's: the newest few stay."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from doorward.record.lock import StoreLock
from doorward.service import run_logs
from doorward.service.run_logs import forget_old, own_log


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Another firewall's, with five of launches beside it: 1 is the oldest. Two of them may stay."""
    monkeypatch.setattr(run_logs, "KEPT_MAX", 2)
    path = tmp_path / "log.db"
    path.touch()
    for number in range(1, 6):
        for name in (f"log-run-{number}.db", f"log-run-{number}.db-wal", f"log-run-{number}.db.lock"):
            (tmp_path / name).touch()
            os.utime(tmp_path / name, (number, number))
    return path


def names(log: Path) -> list[str]:
    return sorted(entry.name for entry in log.parent.iterdir() if entry.suffix == ".db")


def test_it_is_beside_the_others(tmp_path: Path) -> None:
    assert own_log(tmp_path / "log.db") == tmp_path / f"log-run-{os.getpid()}.db"


def test_the_newest_stay_and_nothing_is_left_of_the_others(log: Path) -> None:
    archive = log.with_name("log-run-1-20261121T120000.000000Z.db")
    archive.touch()
    forget_old(log)
    assert names(log) == ["log-run-4.db", "log-run-5.db", "log.db"]
    assert not [entry for entry in log.parent.iterdir() if entry.name.startswith("log-run-1")]


def test_what_is_no_log_of_a_launch_stays(log: Path) -> None:
    others = ["log-run-x.db", "log-20261121T120000.000000Z.db", "other-run-1.db"]
    for name in others:
        (log.parent / name).touch()
        os.utime(log.parent / name, (0, 0))
    forget_old(log)
    assert set(others) <= set(names(log))


def test_one_that_is_written_to_stays(log: Path) -> None:
    lock = StoreLock(log.with_name("log-run-1.db"))
    lock.hold()
    try:
        forget_old(log)
    finally:
        lock.release()
    assert names(log) == ["log-run-1.db", "log-run-4.db", "log-run-5.db", "log.db"]


def test_a_directory_that_is_not_there_is_no_trouble(tmp_path: Path) -> None:
    forget_old(tmp_path / "nowhere" / "log.db")
