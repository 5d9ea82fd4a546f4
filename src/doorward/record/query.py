"""Conditions as an operator types them, turned into SQL: `action=deny user=kim since=1h`.

Every condition must hold. What was typed reaches SQLite as a parameter only, never as text of a statement. Pure: the
reading is `reader.py`'s. `docs/log.md` tells operators the same in their words.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from difflib import get_close_matches
from ipaddress import ip_network
from typing import Final

from doorward.policy.address import BadHost, parse_host
from doorward.policy.names import parse_pattern

WORDS_LENGTH_MAX: Final = 10_000
INTEGER_MAX: Final = 2**63 - 1
WORDS: Final = {
    "action": ("allow", "deny", "fail"),
    "operation": ("connect", "bind", "accept", "udp", "destination", "resolve"),
}
"""Fields with a few known values: any other is taken for a slip."""

_TEXTS: Final = (
    *("entry", "action", "reason", "rule", "policy", "user", "process", "transport", "protocol", "end"),
    *("ended_by", "filters", "detail", "operation", "via"),
)
_NUMBERS: Final = {
    "port": "port",
    "client_port": "client_port",
    "session": "session",
    "connection": "connection",
    "parent": "parent",
}
_SIZES: Final = {
    "bytes": "(bytes_sent + bytes_received)",
    "bytes_sent": "bytes_sent",
    "bytes_received": "bytes_received",
}
_DURATIONS: Final = {"duration": "duration_us", "connect": "connect_us"}
FIELDS: Final = (
    *_TEXTS, *_NUMBERS, *_SIZES, *_DURATIONS, "client", "host", "address", "to", "since", "until",
)  # fmt: skip

_CONDITION: Final = re.compile(r"([A-Za-z][\w-]*)(!=|!~|>=|<=|=|~|>|<)")
_COMPARISONS: Final = ("=", "!=", ">", ">=", "<", "<=")
_SIZE: Final = re.compile(r"([0-9]+)(?:([kmgt])(?:i?b)?|b)?", re.ASCII | re.IGNORECASE)
_SIZE_POWERS: Final = {"k": 1, "m": 2, "g": 3, "t": 4}
_SPAN: Final = re.compile(r"([0-9]+)(us|ms|s|m|h|d|w)", re.ASCII)
_SPAN_US: Final = {
    "us": 1, "ms": 1000, "s": 1_000_000, "m": 60_000_000,
    "h": 3_600_000_000, "d": 86_400_000_000, "w": 604_800_000_000,
}  # fmt: skip
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class BadCondition(ValueError):
    """A condition that cannot be understood; the text is a sentence for whoever typed it."""


@dataclass(frozen=True, slots=True)
class Condition:
    """One test of a row: SQL with `?` for each parameter. Its functions are those of `reader.py`."""

    sql: str
    parameters: tuple[str | int, ...] = ()


@dataclass(frozen=True, slots=True)
class Query:
    """Conditions that must all hold. `since_us` repeats the latest `since`, so that older files are not opened."""

    conditions: tuple[Condition, ...] = ()
    since_us: int | None = None

    @property
    def sql(self) -> str:
        """What follows WHERE; true for an empty query."""
        return " AND ".join(condition.sql for condition in self.conditions) or "1"

    @property
    def parameters(self) -> tuple[str | int, ...]:
        return tuple(value for condition in self.conditions for value in condition.parameters)

    @property
    def times(self) -> tuple[Condition, ...]:
        """Those of its conditions that concern nothing but the time."""
        return tuple(condition for condition in self.conditions if condition.sql.startswith("time_us "))


def parse_conditions(words: Sequence[str], *, now_us: int, zone: tzinfo | None = None) -> Query:
    """The query that these words ask for; no words ask for every record.

    Each word is `field`, operator and value, as in `docs/log.md`; one argument may hold several of them, and a value
    may contain spaces, with quotes around it or without. `now_us` is the present in microseconds since 1970; times
    without an offset are read in `zone`, None being the system's. Raises BadCondition.
    """
    if sum(map(len, words)) > WORDS_LENGTH_MAX:
        raise BadCondition(f"the conditions are longer than {WORDS_LENGTH_MAX} characters")
    conditions: list[Condition] = []
    since_us: int | None = None
    for field, operator, value in (typed for word in words for typed in _split(word)):
        if field in ("since", "until"):
            _require(field, operator, ("=",))
            time_us = _time(field, value, now_us, zone)
            conditions.append(Condition(f"time_us {'>=' if field == 'since' else '<='} ?", (time_us,)))
            if field == "since":
                since_us = time_us if since_us is None else max(since_us, time_us)
        else:
            conditions.append(_condition(field, operator, value))
    # Plain comparisons first: they spare most rows the tests that call back into Python.
    conditions.sort(key=lambda condition: "_matches(" in condition.sql)
    return Query(tuple(conditions), since_us)


def _split(word: str) -> list[tuple[str, str, str]]:
    """Field, operator and value of each condition in one argument. Raises BadCondition."""
    found: list[tuple[str, str, str]] = []
    position = len(word) - len(word.lstrip())
    while position < len(word):
        start = _CONDITION.match(word, position)
        if start is None:
            raise BadCondition(
                f"{word[position:][:60]!r} is not a condition; write it like action=deny or bytes>1m"
            )
        value, position = _value(word, start.end())
        found.append((_field(start[1]), start[2], value))
    return found


def _value(word: str, start: int) -> tuple[str, int]:
    """The value that begins at `start`, and where the next condition begins."""
    quote = word[start : start + 1]
    if quote in ("'", '"') and (end := word.find(quote, start + 1)) > 0:
        rest = word[end + 1 :]
        if not rest or rest[0].isspace():
            return word[start + 1 : end], len(word) - len(rest.lstrip())
    for space in re.finditer(r"\s+", word[start:]):
        if _CONDITION.match(word, start + space.end()):
            return word[start : start + space.start()], start + space.end()
    return word[start:].rstrip(), len(word)


def _field(typed: str) -> str:
    field = typed.lower().replace("-", "_")
    if field in FIELDS:
        return field
    near = get_close_matches(field, FIELDS, n=1)
    advice = f"did you mean {near[0]!r}?" if near else f"the fields are {', '.join(sorted(FIELDS))}"
    raise BadCondition(f"there is no field {typed[:60]!r}; {advice}")


def _require(field: str, operator: str, allowed: Sequence[str]) -> None:
    if operator not in allowed:
        raise BadCondition(
            f"{field}{operator} has no meaning; use one of {', '.join(f'{field}{a}' for a in allowed)}"
        )


def _condition(field: str, operator: str, value: str) -> Condition:
    if field in _TEXTS:
        return _text(field, operator, value)
    if field == "host" and operator in ("~", "!~"):
        return _text("host", operator, value)
    if field in ("client", "address"):
        column = "client_address" if field == "client" else field
        return _choice(field, operator, value, lambda: _network(field, column, value), column)
    if field == "host":
        return _choice(field, operator, value, lambda: _name(value), "host")
    if field == "to":
        return _choice(field, operator, value, lambda: _target(value), "coalesce(host, address)")
    _require(field, operator, _COMPARISONS)
    if field == "parent" and not value and operator in ("=", "!="):
        return Condition(f"parent {_sql(operator)} NULL")
    if field in _NUMBERS:
        return Condition(f"{_NUMBERS[field]} {_sql(operator)} ?", (_number(field, value),))
    if field in _SIZES:
        return Condition(f"{_SIZES[field]} {_sql(operator)} ?", (_size(field, value),))
    return Condition(f"{_DURATIONS[field]} {_sql(operator)} ?", (_span(field, value),))


def _sql(operator: str) -> str:
    return {"=": "IS", "!=": "IS NOT"}.get(operator, operator)


def _text(field: str, operator: str, value: str) -> Condition:
    """Equality, or `~`: contains, ASCII letters in either case. An empty value means that nothing was recorded."""
    _require(field, operator, ("=", "!=", "~", "!~"))
    column = f'"{field}"'
    if operator in ("~", "!~"):
        test = ">" if operator == "~" else "="
        # SQLite's lower() knows ASCII only, so ours must not do more.
        lowered = re.sub("[A-Z]", lambda letter: letter[0].lower(), value)
        return Condition(f"coalesce(instr(lower({column}), ?), 0) {test} 0", (_storable(field, lowered),))
    if field in WORDS and value and value not in WORDS[field]:
        near = get_close_matches(value, WORDS[field], n=1, cutoff=0.5)
        advice = f"did you mean {near[0]!r}?" if near else f"the {field}s are {', '.join(WORDS[field])}"
        raise BadCondition(f"there is no {field} {value[:60]!r}; {advice}")
    return Condition(f"coalesce({column}, '') {operator} ?", (_storable(field, value),))


def _storable(field: str, value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise BadCondition(f"the value of {field} is not valid text") from None
    return value


def _choice(
    field: str, operator: str, value: str, matching: Callable[[], Condition], column: str
) -> Condition:
    """A test that only can be met or not met; an empty value means that nothing was recorded."""
    _require(field, operator, ("=", "!=", "~", "!~") if field == "host" else ("=", "!="))
    test = matching() if value else Condition(f"{column} IS NULL")
    return test if operator == "=" else Condition(f"NOT {test.sql}", test.parameters)


def _network(field: str, column: str, value: str) -> Condition:
    try:
        network = ip_network(value, strict=False)
    except ValueError:
        raise BadCondition(f"{field} is an address or a range like 10.0.0.0/8, not {value[:60]!r}") from None
    return Condition(f"network_matches({column}, ?)", (str(network),))


def _name(value: str) -> Condition:
    if value == "*":
        return Condition("(host IS NOT NULL)")
    try:
        return Condition("name_matches(host, ?)", (parse_pattern(value),))
    except BadHost as error:
        raise BadCondition(f"host {value[:60]!r}: {error.detail}; host~text finds any text") from None


def _target(value: str) -> Condition:
    """A name or pattern is looked for in the host, an address or range in the address that was dialled."""
    try:
        return _network("to", "address", value)
    except BadCondition:
        pass
    try:
        host = parse_host(value)
    except BadHost:
        return _name(value)
    return _name(host) if isinstance(host, str) else _network("to", "address", str(host))


def _number(field: str, value: str) -> int:
    if not (value.isascii() and value.isdigit()) or len(value) > 19:
        raise BadCondition(f"{field} is a number, not {value[:60]!r}")
    return min(int(value), INTEGER_MAX)


def _size(field: str, value: str) -> int:
    found = _SIZE.fullmatch(value)
    if found is None or len(value) > 19:
        raise BadCondition(f"{field} is a size like 500, 20k or 1m, not {value[:60]!r}")
    return min(int(found[1]) << 10 * _SIZE_POWERS.get((found[2] or "").lower(), 0), INTEGER_MAX)


def _span(field: str, value: str) -> int:
    """Microseconds of `90s`, `1h30m`, `200ms`."""
    parts = _SPAN.findall(value)
    if not parts or len(value) > 40 or "".join(number + unit for number, unit in parts) != value:
        raise BadCondition(f"{field} is a time like 200ms, 10s or 1h30m, not {value[:60]!r}")
    return min(sum(int(number) * _SPAN_US[unit] for number, unit in parts), INTEGER_MAX)


def _time(field: str, value: str, now_us: int, zone: tzinfo | None) -> int:
    """A moment: so long ago (`1h`), or a date and perhaps a time in ISO 8601."""
    if _SPAN.match(value):
        try:
            return max(now_us - _span(field, value), 0)
        except BadCondition:
            pass
    try:
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=zone) if zone is not None else moment.astimezone()
        return (moment - _EPOCH) // timedelta(microseconds=1)
    except (ValueError, OverflowError, OSError):
        raise BadCondition(
            f"{field} is a time like 1h, 2d, 2026-11-20 or 2026-11-20T10:00, not {value[:60]!r}"
        ) from None
