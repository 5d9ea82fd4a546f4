"""What the tests of this room share: records to write, settings for a small store, an observer of its events."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from doorward.config.model import LogSettings
from doorward.record.model import Record

NOON_US: Final = 1_795_262_400_000_000
"""2026-11-21 12:00 UTC."""
DAY_US: Final = 86_400_000_000

TEXT_FIELDS: Final = (
    *("entry", "action", "reason", "rule", "policy", "user", "process", "client_address", "host", "address"),
    *("transport", "protocol", "end", "ended_by", "filters", "detail", "operation", "via"),
)


def everywhere(text: str) -> dict[str, Any]:
    """The same text in every field that can hold one."""
    return dict.fromkeys(TEXT_FIELDS, text)


def a_record(connection: int = 1, **changes: Any) -> Record:
    values: dict[str, Any] = {
        "time_us": NOON_US + connection,
        "session": 7,
        "connection": connection,
        "entry": "socks5",
        "action": "allow",
        "reason": "rule",
        "rule": "engineers fetch code",
        "user": "kim",
        "client_address": "192.168.1.5",
        "client_port": 40_000,
        "host": "api.example.org",
        "address": "203.0.113.7",
        "port": 443,
        "protocol": "https",
        "bytes_sent": 1234,
        "bytes_received": 45_678,
        "duration_us": 1_200_000,
        "end": "eof",
        "ended_by": "internal",
    }
    return Record(**(values | changes))


def settings(directory: Path, **changes: Any) -> LogSettings:
    return LogSettings(**({"path": directory / "doorward.db"} | changes))


@dataclass
class Events:
    """Keeps what it is told."""

    told: list[tuple[str, dict[str, object]]] = field(default_factory=list)

    def __call__(self, name: str, /, **fields: object) -> None:
        self.told.append((name, fields))

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.told]


@dataclass
class Clock:
    """A clock that stands still until it is moved."""

    now_us: int = NOON_US

    def __call__(self) -> int:
        return self.now_us
