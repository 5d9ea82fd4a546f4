"""What is wrong with a policy file: one `Problem` per mistake, all of them, each with file, line and key.

A problem's text may quote the file, and the file may hold anything; rendering escapes what a terminal would
obey. Passwords are never quoted.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Final, Literal

from msgspec import Struct

from doorward.config.lines import KeyPath, Lines
from doorward.wire.printable import printable

MESSAGE_LENGTH_MAX: Final = 600
SUGGESTIONS_MAX: Final = 100
"""Looking for similar names costs time that grows with their number; after so many mistakes it stops."""
CHOICES_MAX: Final = 2_000

_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")


class Problem(Struct, frozen=True):
    """One mistake (`error`) or doubt (`warning`). Line 0 means the file as a whole."""

    file: str
    line: int
    path: KeyPath
    message: str
    severity: Literal["error", "warning"] = "error"

    def __str__(self) -> str:
        """`FILE:LINE: KEY.PATH: message`, safe to print, one line."""
        parts = [printable(self.file) + (f":{self.line}" if self.line else "")]
        if self.path:
            parts.append(printable(key_text(self.path)))
        if self.severity == "warning":
            parts.append("warning")
        parts.append(printable(self.message, MESSAGE_LENGTH_MAX))
        return ": ".join(parts)


class ConfigurationRefused(Exception):
    """The policy file does not pass its check. `problems` holds all that was found, warnings too."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))


class Report:
    """Collects problems of one file while it is read."""

    def __init__(self, file: str, lines: Lines) -> None:
        self._file = file
        self._lines = lines
        self._found: dict[Problem, None] = {}
        self._suggestions_left = SUGGESTIONS_MAX
        self.errors = 0

    @property
    def failed(self) -> bool:
        return self.errors > 0

    def line(self, path: KeyPath) -> int:
        return self._lines.of(path)

    def error(self, path: KeyPath, message: str) -> None:
        self._found[Problem(self._file, self.line(path), path, message)] = None
        self.errors += 1

    def warning(self, path: KeyPath, message: str) -> None:
        self._found[Problem(self._file, self.line(path), path, message, "warning")] = None

    def unknown(self, path: KeyPath, kind: str, word: str, choices: Iterable[str]) -> None:
        """Note that `word` is no `kind` that exists, and which one was probably meant."""
        hint = ""
        if self._suggestions_left:
            self._suggestions_left -= 1
            hint = did_you_mean(word, choices)
        self.error(path, f'unknown {kind} "{word}"{hint}')

    def problems(self) -> list[Problem]:
        """Everything found so far, in the order of the file."""
        return sorted(self._found, key=_place)


def _place(problem: Problem) -> tuple[int, list[str]]:
    return problem.line, [f"{part:09}" if isinstance(part, int) else part for part in problem.path]


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """`; did you mean "lan"?` if one of the choices is close to `word`, else nothing."""
    by_folded = {choice.casefold(): choice for choice, _ in zip(choices, range(CHOICES_MAX), strict=False)}
    close = difflib.get_close_matches(word[:64].casefold(), by_folded, n=1, cutoff=0.6)
    return f'; did you mean "{by_folded[close[0]]}"?' if close else ""


def key_text(path: KeyPath) -> str:
    """A key path as people write it: `rule[2].to[0]`, `networks."my lan"`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            shown = part if _BARE_KEY.fullmatch(part) else f'"{part}"'
            text += f".{shown}" if text else shown
    return text
