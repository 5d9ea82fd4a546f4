"""Words that have no place in the tree: where or by whom it was written, and signs of work half done.

A stranger who reads this tree has none of our machines and none of our lists, and takes what stands here as
finished. Every text file that git knows is read. What must stand all the same is in ALLOWED, with its reason.
The words are put together from halves, so that this file passes itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from tools.tree import Breach, files


class Forbidden(NamedTuple):
    """A pattern, and what to write in its place."""

    pattern: re.Pattern[str]
    advice: str


class Allowed(NamedTuple):
    """A word that may stand in one file: lower case, as the pattern finds it."""

    path: str
    word: str


_UNFINISHED = "finish it, or leave it out and say so where people look for it (docs/, CHANGELOG.md)"
_MACHINE = "a path of one machine; write it relative to the repository, or take it from the environment"
_REGISTRY = (
    "a package registry's host; leave it to the machine's own settings, and use example.org in examples"
)


def _forbid(advice: str, *halves: tuple[str, str], case: bool = False) -> Forbidden:
    pattern = "|".join(first + second for first, second in halves)
    return Forbidden(re.compile(pattern, 0 if case else re.IGNORECASE), advice)


FORBIDDEN: Final = (
    _forbid(_MACHINE, (r"(?<![\w.])/ro", r"ot/"), (r"(?<![\w.])/wo", r"rk/"), (r"(?<![\w.])/ho", r"me/\w+")),
    _forbid(
        _REGISTRY,
        *((r"\bpyp", r"i\.(?:org|io|python)"), (r"\bpythonh", r"osted\.org"), (r"\bnpm", r"js\.(?:org|com)")),
        *((r"\bcrates", r"\.io"), (r"\bdeb\.deb", r"ian\.org"), (r"\bproxy\.gol", r"ang\.org")),
    ),
    _forbid(_UNFINISHED, (r"\bTO", r"DO\b"), (r"\bFIX", r"ME\b"), (r"\bX", r"XX\b"), case=True),
    _forbid(_UNFINISHED, (r"\bfor ", r"now\b"), (r"\bsimpli", r"fied\b"), (r"\bst", r"ub(?:s|bed)?\b")),
    _forbid("a number on somebody's list; say what the matter is", (r"\bissue", r"s? ?#")),
)

ALLOWED: Final[dict[Allowed, str]] = {
    Allowed("native/Cargo.lock", "crates" + ".io"): "cargo writes the name of its registry there",
}


def check(root: Path, allowed: dict[Allowed, str] = ALLOWED) -> Iterator[Breach]:
    """Every forbidden word in a text file, and every permission that nothing needs."""
    unused = {permission for permission in allowed if (root / permission.path).exists()}
    for path in files(root):
        for line, word, advice in _found(root / path):
            permission = Allowed(path, word.lower())
            if permission in allowed:
                unused.discard(permission)
            else:
                yield Breach(path, line, f"{word!r}: {advice}")
    for permission in unused:
        yield Breach(permission.path, 1, f"{permission.word!r} is gone; delete its line in tools/words.py")


def _found(file: Path) -> Iterator[tuple[int, str, str]]:
    try:
        text = file.read_text("utf-8")
    except UnicodeDecodeError:
        return  # not text
    for forbidden in FORBIDDEN:
        for match in forbidden.pattern.finditer(text):
            yield text.count("\n", 0, match.start()) + 1, match[0], forbidden.advice
