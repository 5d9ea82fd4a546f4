"""Where each key of a TOML text stands: key path to line, because `tomllib` gives no positions.

The text has already been accepted by `tomllib`, so this scanner relies on its validity and never judges. It
records where tables begin, in one quick pass, and looks inside a table only when somebody asks about it: a
policy of 100,000 rules needs one line per rule, and mistakes are few.

Grammar: TOML 1.0, https://toml.io/en/v1.0.0 (keys, strings, arrays, inline tables, arrays of tables).
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_right
from typing import Final, TypeAlias

KeyPath: TypeAlias = tuple[str | int, ...]
"""A place in a document, such as `("rule", 0, "to", 2)`."""

PATH_LENGTH_MAX: Final = 40
"""Anything nested deeper is given the line of what holds it; it bounds the recursion."""

# Possessive repeats stand on single characters only. On groups, Python up to 3.11.4 matches too much (CPython
# gh-100061, gh-106052), and Debian 12 has 3.11.2. The alternatives in each group begin differently instead.
_LONG: Final = (
    r'"""(?:[^\\"]++|\\[\s\S]|"(?!""))*""""{0,2}'  # the closing quotes may follow two that belong to the text
    r"|'''(?:[^']++|'(?!''))*''''{0,2}"
)
_SHORT: Final = r'(?!""")"(?:[^"\\\n]++|\\.)*"' + r"|(?!''')'[^'\n]*+'"
_BARE: Final = r"""[^\s"'\[\]{}#,=][^"'\[\]{}#,\n]*+"""

_BLANK: Final = re.compile(r"(?:[\s,]++|#[^\n]*+)*")
_HEADER: Final = re.compile(r"[ \t]*\[(\[?)")
_KEY_PART: Final = re.compile(
    r"""[ \t]*(?:"(?P<basic>(?:[^"\\\n]++|\\.)*)"|'(?P<literal>[^'\n]*+)'|(?P<bare>[A-Za-z0-9_-]++))"""
    r"[ \t]*(?P<dot>\.)?"
)
_EQUALS: Final = re.compile(r"[ \t]*=[ \t]*")
_SCALAR: Final = re.compile(f"{_LONG}|{_SHORT}|{_BARE}")
_TOKEN: Final = re.compile(rf"{_LONG}|{_SHORT}|#[^\n]*+|[\[\]{{}}\n]|[^\"'\[\]{{}}#\n]++")
# Whole lines that hold nothing, a comment, or `key = value` with a value that is plainly over at the line's end.
# A thousand at a time: the matcher remembers each of them until it is done.
_PLAIN_LINES: Final = re.compile(
    rf"(?:[ \t]*+(?:[A-Za-z0-9_-]++[ \t]*+=[ \t]*+(?:{_SHORT}|\[(?:{_SHORT}|[^\[\]{{}}\"'#\n]++)*\]|{_BARE})[ \t]*+)?"
    r"(?:#[^\n]*+)?\n){0,1000}"
)


class Lines:
    """The lines of one TOML text that `tomllib` accepts. Line ends may be LF or CRLF."""

    def __init__(self, text: str) -> None:
        text = text.replace("\r\n", "\n")
        self._text = text if text.endswith("\n") else text + "\n"
        self._starts = [0, *(found.end() for found in re.finditer("\n", self._text))]
        self._tables: dict[KeyPath, int] = {}
        self._bodies: dict[KeyPath, tuple[int, int]] = {}
        self._inside: dict[KeyPath, dict[KeyPath, int]] = {}
        self._find_tables()

    def of(self, path: KeyPath) -> int:
        """The line, from 1, on which `path` begins; that of its nearest parent if the text does not hold it."""
        for length in range(len(path), 0, -1):
            position = self._position(path[:length])
            if position is not None:
                return bisect_right(self._starts, position)
        return 1

    def extent(self, table: KeyPath) -> tuple[int, int] | None:
        """The first and the last line of a table with a heading of its own; None for one without.

        Blank lines and comments before the next heading are not part of it: they mostly belong to what follows.
        """
        if not table or table not in self._bodies:
            return None
        start, end = self._bodies[table]
        rows = self._text[start:end].split("\n")
        while rows and (not rows[-1].strip() or rows[-1].lstrip().startswith("#")):
            rows.pop()
        heading = bisect_right(self._starts, start) - 1
        return heading, heading + len(rows)

    def _position(self, path: KeyPath) -> int | None:
        if path in self._tables:
            return self._tables[path]
        for length in range(len(path) - 1, -1, -1):
            position = self._body(path[:length]).get(path)
            if position is not None:
                return position
        return None

    def _find_tables(self) -> None:
        text, position = self._text, 0
        table: KeyPath = ()
        body = 0
        counts: dict[KeyPath, int] = {}
        while True:
            position = _end(_PLAIN_LINES, text, position)
            header = _HEADER.match(text, position)
            if header is None and position < len(text):
                position = _skip(text, position, "\n")
                continue
            self._bodies[table] = (body, position)
            if header is None:
                return
            keys, end = _key(text, header.end())
            table = self._enter(keys, position, counts, is_array=bool(header[1]))
            body = position = text.index("\n", end) + 1

    def _enter(
        self, keys: tuple[str, ...], position: int, counts: dict[KeyPath, int], *, is_array: bool
    ) -> KeyPath:
        """The path of the table that a header opens; a name that is an array of tables means its last one."""
        path: KeyPath = ()
        for place, key in enumerate(keys):
            path = (*path, key)
            self._tables.setdefault(path, position)
            if is_array and place == len(keys) - 1:
                counts[path] = counts.get(path, 0) + 1
            if path in counts:
                path = (*path, counts[path] - 1)
                self._tables.setdefault(path, position)
        self._tables[path] = min(self._tables[path], position)
        return path

    def _body(self, table: KeyPath) -> dict[KeyPath, int]:
        """Positions of everything between the header of `table` and the next header."""
        if table not in self._bodies:
            return {}
        if table not in self._inside:
            found = self._inside[table] = {}
            position, end = self._bodies[table]
            while (position := _end(_BLANK, self._text, position)) < end:
                position = self._pair(position, table, found)
        return self._inside[table]

    def _pair(self, position: int, table: KeyPath, found: dict[KeyPath, int]) -> int:
        keys, end = _key(self._text, position)
        for length in range(1, len(keys) + 1):
            found.setdefault((*table, *keys[:length]), position)
        return self._value(_end(_EQUALS, self._text, end), (*table, *keys), found)

    def _value(self, position: int, path: KeyPath, found: dict[KeyPath, int]) -> int:
        """Note what stands inside the value that begins at `position`; answers where it ends."""
        text = self._text
        opening = text[position]
        if opening not in "[{":
            return _end(_SCALAR, text, position)
        if len(path) >= PATH_LENGTH_MAX:
            return _skip(text, position, "]}")
        position = _end(_BLANK, text, position + 1)
        index = 0
        while text[position] not in "]}":
            if opening == "[":
                found[(*path, index)] = position
                position = self._value(position, (*path, index), found)
                index += 1
            else:
                position = self._pair(position, path, found)
            position = _end(_BLANK, text, position)
        return position + 1


def _match(pattern: re.Pattern[str], text: str, position: int) -> re.Match[str]:
    found = pattern.match(text, position)
    if found is None:
        raise AssertionError("the text was accepted by tomllib")
    return found


def _end(pattern: re.Pattern[str], text: str, position: int) -> int:
    return _match(pattern, text, position).end()


def _skip(text: str, position: int, until: str) -> int:
    """The end of a value (`until` a closing bracket) or of a statement (`until` a line end), brackets balanced."""
    depth = 0
    while position < len(text):
        first = text[position]
        position = _end(_TOKEN, text, position)
        depth += (first in "[{") - (first in "]}")
        if depth == 0 and first in until:
            break
    return position


def _key(text: str, position: int) -> tuple[tuple[str, ...], int]:
    """A key, dotted or not: its parts, and where it ends."""
    parts: list[str] = []
    while True:
        found = _match(_KEY_PART, text, position)
        basic, literal, bare, dot = found.group("basic", "literal", "bare", "dot")
        if basic is not None and "\\" in basic:
            basic = tomllib.loads(f'key = "{basic}"')["key"]
        parts.append(next(part for part in (basic, literal, bare) if part is not None))
        position = found.end()
        if not dot:
            return tuple(parts), position
