"""A helper in a thread, whose kernel only remembers."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.packetfilter.tables import RememberingNft

from doorward.packetfilter.helper import Helper
from doorward.packetfilter.keeper import Keeper


class Helped:
    """`said` is what it told the operator."""

    def __init__(self, path: Path, user: int | None = None) -> None:
        self.path = path
        self.said: list[str] = []
        self.nft = RememberingNft()
        self.helper = Helper(Keeper(self.nft), path, os.getuid() if user is None else user, self.said.append)
        self._thread = threading.Thread(target=self.helper.serve)
        self._thread.start()

    def end(self) -> None:
        self.helper.stop()
        self._thread.join(10)
        assert not self._thread.is_alive()


@contextmanager
def helping(path: Path, user: int | None = None) -> Iterator[Helped]:
    """Ends with the block."""
    found = Helped(path, user)
    try:
        yield found
    finally:
        found.end()
