"""One writer for a store: a lock file beside it, held with flock(2) for as long as the writer lives.

The kernel lets go of it when the process dies, however it dies, so nothing has to be cleaned up. Readers do not
take it. The file stays when the lock is given back: deleting it would let two processes lock two different files.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from doorward.record.model import StoreInUse


class StoreLock:
    """The lock on one store, held by at most one process: a file beside the store."""

    def __init__(self, store: Path) -> None:
        self._store = store
        self._path = store.with_name(store.name + ".lock")
        self._descriptor: int | None = None

    def hold(self) -> None:
        """Take the lock, or make sure that it is still ours: the file may have been deleted with its directory.

        Raises StoreInUse if another process holds it, OSError if the file cannot be made. Never waits.
        """
        if self._descriptor is not None and self._still_there(self._descriptor):
            return
        self.release()
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise StoreInUse(f"another process is writing to the log {self._store}") from None
        except OSError:
            os.close(descriptor)
            raise
        self._descriptor = descriptor

    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _still_there(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), self._path.stat())
        except FileNotFoundError:
            return False
