"""The store of records as the engine sees it."""

from __future__ import annotations

from doorward.config.model import LogSettings
from doorward.record.store import RecordStore


class StoreRecorder:
    """Hands records to the store, and says when new connections must be refused because it cannot keep them."""

    def __init__(self, store: RecordStore, settings: LogSettings) -> None:
        self._store = store
        self._closed = settings.on_failure == "closed"
        self.append = store.append

    def refuses(self) -> str | None:
        """Why no new connection may be made, or None."""
        if not self._closed:
            return None
        if self._store.failure is not None:
            return self._store.failure
        return "too many records wait to be written" if self._store.full else None
