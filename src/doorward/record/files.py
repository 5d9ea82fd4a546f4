"""Where the store's files are, what they are called, and which of them have to go.

The current file has the configured path. A finished one is renamed to `<stem>-<UTC time it was begun><suffix>`, a
damaged one to `<name>.corrupt-<UTC time>`. The time in an archive's name is also the number of its first record (see
`database.py`), so the names alone say in which file a record is. Nothing here opens a file: SQLite's locks would be
lost if this process closed another descriptor of the same file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, NamedTuple

from doorward.config.model import LogSettings

SIDECARS: Final = ("", "-wal", "-shm", "-journal")
"""The database itself and what SQLite keeps beside it; they move and go together."""
DAY_US: Final = 24 * 3600 * 1_000_000
_STAMP: Final = r"[0-9]{8}T[0-9]{6}\.[0-9]{6}Z"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_TIME_US_MAX: Final = 253_402_300_799_999_999  # the last microsecond of the year 9999


class Archive(NamedTuple):
    """A finished file. Its records are numbered from `first_id` up to the next file's `first_id`."""

    path: Path
    first_id: int


def stamp(time_us: int) -> str:
    """`20261121T233337.000000Z`: sorts as text, and has no character that a file system or a shell minds."""
    time_us = min(max(time_us, 0), _TIME_US_MAX)
    return (_EPOCH + timedelta(microseconds=time_us)).strftime("%Y%m%dT%H%M%S.%fZ")


def archive_path(path: Path, first_id: int) -> Path:
    """Where the file whose first record is `first_id` goes when it is full."""
    return path.with_name(f"{path.stem}-{stamp(first_id)}{path.suffix}")


def corrupt_path(path: Path, time_us: int) -> Path:
    """Where a file goes that SQLite cannot read any more, found at `time_us`."""
    return path.with_name(f"{path.name}.corrupt-{stamp(time_us)}")


def archives(path: Path) -> list[Archive]:
    """The finished files of the store at `path`, oldest first. Raises OSError, a missing directory included."""
    pattern = re.compile(rf"{re.escape(path.stem)}-({_STAMP}){re.escape(path.suffix)}")
    found = []
    for entry in path.parent.iterdir():
        match = pattern.fullmatch(entry.name)
        if match and (first_id := _time_us(match[1])) is not None:
            found.append(Archive(entry, first_id))
    return sorted(found, key=lambda archive: archive.first_id)


def move(source: Path, target: Path) -> None:
    """Rename a database with what SQLite keeps beside it. Raises OSError unless at least the database moved."""
    for sidecar in SIDECARS[1:]:
        try:
            Path(f"{source}{sidecar}").rename(f"{target}{sidecar}")
        except FileNotFoundError:
            pass  # the usual case: a finished database has nothing beside it
    source.rename(target)


def expired(settings: LogSettings, now_us: int) -> list[Path]:
    """The finished and damaged files that have to go, oldest first. Raises OSError if the directory is gone.

    One file's full size is kept free for the current file, so that `total_bytes_max` also holds while it grows.
    """
    kept = sorted(_finished(settings.path))
    room_bytes = settings.total_bytes_max - settings.file_bytes_max
    total_bytes = sum(size for _, size, _ in kept)
    oldest_us = now_us - settings.keep_days * DAY_US
    gone = []
    for changed_us, size, path in kept:
        if total_bytes <= room_bytes and changed_us >= oldest_us:
            break
        total_bytes -= size
        gone.append(path)
    return gone


def delete(path: Path) -> None:
    """Delete a database and what is beside it; one that is gone already is no mistake. Raises OSError."""
    path.unlink(missing_ok=True)
    for sidecar in SIDECARS[1:]:
        Path(f"{path}{sidecar}").unlink(missing_ok=True)


def _finished(path: Path) -> Iterator[tuple[int, int, Path]]:
    """Time of the last change, size and path of every file that is not written to any more."""
    damaged = re.compile(rf"{re.escape(path.name)}\.corrupt-{_STAMP}")
    paths = [archive.path for archive in archives(path)]
    paths += [entry for entry in path.parent.iterdir() if damaged.fullmatch(entry.name)]
    for finished in paths:
        try:
            status = finished.stat()
        except FileNotFoundError:
            continue  # somebody else deleted it
        yield status.st_mtime_ns // 1000, status.st_size, finished


def _time_us(text: str) -> int | None:
    try:
        time = datetime.strptime(text, "%Y%m%dT%H%M%S.%fZ").replace(tzinfo=UTC)
    except ValueError:
        return None  # digits, but not a date: not one of ours
    return (time - _EPOCH) // timedelta(microseconds=1)
