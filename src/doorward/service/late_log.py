"""The operational log for a command that mostly has nothing to say in it: made when somebody says something.

Loading it takes as long as everything else that launching a program needs.
"""

from __future__ import annotations

from typing import Any


class LateLog:
    """As `make_logger` gives it, warnings and errors only."""

    def __init__(self) -> None:
        self._log: Any = None

    def debug(self, event: str, **fields: object) -> None:
        """Not told."""

    def info(self, event: str, **fields: object) -> None:
        """Not told."""

    def warning(self, event: str, **fields: object) -> None:
        """Something that the operator may want to mend."""
        self._made().warning(event, **fields)

    def error(self, event: str, **fields: object) -> None:
        """Something that has failed."""
        self._made().error(event, **fields)

    def _made(self) -> Any:
        if self._log is None:
            from doorward.service.operational_log import make_logger

            self._log = make_logger(level="warning")
        return self._log
