"""The log of a launched program whose policy's log another firewall writes to: a file of its own beside it.

    doorward.db              the other firewall's
    doorward-run-4711.db     of the launcher with this process number

Somebody may want to read it afterwards, so the newest few stay; each launch that needs one removes the rest.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

from doorward.record.files import SIDECARS, archives, delete
from doorward.record.lock import StoreLock
from doorward.record.model import StoreInUse

KEPT_MAX: Final = 20


def own_log(path: Path) -> Path:
    """Where this process writes instead of `path`."""
    return path.with_name(f"{path.stem}-run-{os.getpid()}{path.suffix}")


def forget_old(path: Path) -> None:
    """Remove all but the newest of those beside `path` that nobody writes to any more. Never raises."""
    pattern = re.compile(rf"{re.escape(path.stem)}-run-[0-9]+{re.escape(path.suffix)}")
    try:
        found = [entry for entry in path.parent.iterdir() if pattern.fullmatch(entry.name)]
        for old in sorted(found, key=_changed, reverse=True)[KEPT_MAX:]:
            _remove(old)
    except OSError:
        pass  # it is somebody else's directory, or somebody else tidies up; there is a next time


def _remove(log: Path) -> None:
    lock = StoreLock(log)
    try:
        lock.hold()
    except StoreInUse:
        return
    try:
        for archive in archives(log):
            delete(archive.path)
        delete(log)
        log.with_name(f"{log.name}.lock").unlink(missing_ok=True)
    finally:
        lock.release()


def _changed(log: Path) -> int:
    """In nanoseconds; the newest of the file and what SQLite keeps beside it. Raises OSError if it is gone."""
    beside = (Path(f"{log}{sidecar}") for sidecar in SIDECARS)
    return max((one.stat().st_mtime_ns for one in beside if one.exists()), default=0)
