r"""Records as text: a line for people, all fields for people, a line of JSON for programs.

Pure. Hosts, users and programs come from the network or from other people's processes; for people all text goes through
`printable`, and a word with a space in it is quoted, so that no text can pass for another column. JSON keeps the text
as it was, in ASCII: whatever a terminal might obey is written \uNNNN.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final

from msgspec import to_builtins
from msgspec.structs import fields

from doorward.record.model import Record
from doorward.wire.printable import printable

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_COLOURS: Final = {"allow": "\x1b[32m", "deny": "\x1b[31m", "fail": "\x1b[33m"}
_PLAIN: Final = "\x1b[0m"
_WIDTHS: Final = (23, 6, 16, 10, 15, 34, 10, 8, 8, 8)
_TITLES: Final = (
    "time",
    "action",
    "reason",
    "user",
    "client",
    "→ to",
    "protocol",
    "sent",
    "received",
    "duration",
)
_NAMES: Final = tuple(field.name for field in fields(Record))
_NAME_WIDTH: Final = max(map(len, _NAMES))
NOTHING: Final = "-"
WIDE_CHARACTERS_MAX: Final = 4000
"""Of each field in the wide form; a line shows 200."""


def header() -> str:
    """The titles over the columns of `line`."""
    return _columns([*_TITLES, "end"])


def line(record: Record, *, colour: bool = False, zone: tzinfo | None = None) -> str:
    """One line in fixed columns; a value that is too wide pushes the rest aside rather than being cut.

    Times are in `zone`, None being the system's. `colour` adds terminal colours to the action and nothing else.
    """
    cells = [
        time_text(record.time_us, zone),
        word(record.action),
        word(record.reason),
        word(record.user),
        word(record.client_address),
        purpose(record),
        word(record.protocol or record.transport),
        size_text(record.bytes_sent),
        size_text(record.bytes_received),
        duration_text(record.duration_us),
        ending(record),
    ]
    text = _columns(cells)
    if colour and record.action in _COLOURS:
        start = max(len(cells[0]), _WIDTHS[0]) + 2
        end = start + len(cells[1])
        text = f"{text[:start]}{_COLOURS[record.action]}{text[start:end]}{_PLAIN}{text[end:]}"
    return text


def wide(record: Record, *, zone: tzinfo | None = None) -> str:
    """Every field on a line of its own, under its name; no blank line at the end."""
    values = {name: getattr(record, name) for name in _NAMES}
    shown = {
        name: word(value) if isinstance(value, str | None) else str(value) for name, value in values.items()
    }
    shown["time_us"] += f"  {time_text(record.time_us, zone)}"
    return "\n".join(f"{name:<{_NAME_WIDTH}}  {value}" for name, value in shown.items())


def json_line(record: Record) -> str:
    """One JSON object in printable ASCII, without a line end; the fields of Record in their order, null included."""
    text = json.dumps(to_builtins(record), ensure_ascii=True, separators=(",", ":"))
    return text.replace("\x7f", "\\u007f")  # ASCII, but not printable


def word(text: str | None, limit: int = 200) -> str:
    """Text as one word: escaped, quoted if it holds a space, a quote or nothing; `-` if there is none."""
    if text is None:
        return NOTHING
    shown = printable(text, limit)
    if not shown or shown == NOTHING or '"' in shown or any(character.isspace() for character in shown):
        return '"' + shown.replace('"', '\\"') + '"'
    return shown


def purpose(record: Record) -> str:
    """What it was about: `→ example.org:443`, `→ example.org:443 via corp`, `bind port 4711 for 192.0.2.7`,
    `accept from 192.0.2.7:20`, `udp port 4711`, `udp → example.org:53`, `name example.org`.
    """
    match record.operation:
        case "bind":
            expected = record.host if record.host is not None else record.address
            text = "bind" + _at_port(record) + (f" for {word(expected)}" if expected is not None else "")
        case "accept":
            text = f"accept from {target(record)}"
        case "udp":
            text = "udp" + _at_port(record)
        case "destination":
            text = f"udp → {target(record)}"
        case "resolve":
            text = f"name {word(record.host if record.host is not None else record.address)}"
        case _:
            text = f"→ {target(record)}"
    return text if record.via is None else f"{text} via {word(record.via)}"


def _at_port(record: Record) -> str:
    return f" port {record.port}" if record.port else ""


def target(record: Record) -> str:
    """Host or address, with the port: what was asked for, not what it stood for."""
    text = word(record.host if record.host is not None else record.address)
    return f"[{text}]:{record.port}" if ":" in text else f"{text}:{record.port}"


def ending(record: Record) -> str:
    """How it ended and by whom, as in `reset/external`."""
    if record.end is None:
        return NOTHING
    return word(record.end) if record.ended_by is None else f"{word(record.end)}/{word(record.ended_by)}"


def time_text(time_us: int, zone: tzinfo | None = None) -> str:
    """`2026-11-21 23:33:37.123`; the number itself if no calendar has it."""
    try:
        moment = (_EPOCH + timedelta(microseconds=time_us)).astimezone(zone)
    except (OverflowError, ValueError, OSError):
        return f"{time_us}us"
    return moment.replace(tzinfo=None).isoformat(sep=" ", timespec="milliseconds")


def size_text(size_bytes: int) -> str:
    """`512`, `1.5k`, `20M`; powers of 1024."""
    if abs(size_bytes) < 1024:
        return str(size_bytes)
    size = float(size_bytes)
    for unit in "kMGTP":
        size /= 1024
        if abs(size) < 1000 or unit == "P":
            return f"{size:.1f}{unit}" if abs(size) < 10 else f"{size:.0f}{unit}"
    raise AssertionError("the last unit always fits")


def duration_text(duration_us: int) -> str:
    """`850us`, `12ms`, `3.4s`, `5m20s`, `3h05m`."""
    if duration_us < 1000:
        return f"{duration_us}us"
    if duration_us < 1_000_000:
        return f"{duration_us // 1000}ms"
    seconds = duration_us // 1_000_000
    if seconds < 60:
        return f"{duration_us / 1_000_000:.1f}s" if seconds < 10 else f"{seconds}s"
    minutes, seconds = divmod(seconds, 60)
    if minutes < 60:
        return f"{minutes}m{seconds:02}s"
    return f"{minutes // 60}h{minutes % 60:02}m"


def _columns(cells: list[str]) -> str:
    padded = [f"{cell:<{width}}" for cell, width in zip(cells, _WIDTHS, strict=False)]
    return "  ".join([*padded, *cells[len(_WIDTHS) :]])
