"""One writer for a store."""

from __future__ import annotations

import shutil
import stat
from pathlib import Path

import pytest

from doorward.record.lock import StoreLock
from doorward.record.model import StoreInUse


def test_a_second_writer_is_refused_and_told_which_file(tmp_path: Path) -> None:
    first, second = StoreLock(tmp_path / "doorward.db"), StoreLock(tmp_path / "doorward.db")
    first.hold()
    with pytest.raises(StoreInUse, match=r"another process is writing to the log .*doorward\.db"):
        second.hold()
    first.release()
    second.hold()
    second.release()


def test_holding_twice_and_releasing_twice_is_harmless(tmp_path: Path) -> None:
    lock = StoreLock(tmp_path / "doorward.db")
    lock.hold()
    lock.hold()
    lock.release()
    lock.release()


def test_a_lock_that_was_deleted_with_its_directory_is_taken_anew(tmp_path: Path) -> None:
    directory = tmp_path / "log"
    directory.mkdir()
    lock, rival = StoreLock(directory / "doorward.db"), StoreLock(directory / "doorward.db")
    lock.hold()
    shutil.rmtree(directory)
    directory.mkdir()
    lock.hold()
    with pytest.raises(StoreInUse):
        rival.hold()
    lock.release()


def test_a_rival_that_was_quicker_in_a_new_directory_wins(tmp_path: Path) -> None:
    lock, rival = StoreLock(tmp_path / "doorward.db"), StoreLock(tmp_path / "doorward.db")
    lock.hold()
    (tmp_path / "doorward.db.lock").unlink()
    rival.hold()
    with pytest.raises(StoreInUse):
        lock.hold()
    rival.release()


def test_the_lock_file_is_private(tmp_path: Path) -> None:
    lock = StoreLock(tmp_path / "doorward.db")
    lock.hold()
    assert stat.S_IMODE((tmp_path / "doorward.db.lock").stat().st_mode) == 0o600
    lock.release()


def test_a_missing_directory_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        StoreLock(tmp_path / "gone" / "doorward.db").hold()
