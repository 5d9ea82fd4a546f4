"""Name patterns: which host names a rule is about, and which rules a host name meets.

`example.org` is that name, `*.example.org` any name below it, `.example.org` both. There are no other
wildcards, so a look-up is a few dictionary probes, however many patterns there are. Names are compared, never
resolved.
"""

from __future__ import annotations

from collections.abc import Iterable

from doorward.policy.address import BadHost, parse_host


def parse_pattern(text: str) -> str:
    """The pattern in the form that rules hold: lower case, no final dot.

    Raises BadHost with a sentence for whoever wrote the policy.
    """
    prefix = next((prefix for prefix in ("*.", ".") if text.startswith(prefix)), "")
    base = text.removeprefix(prefix)
    if "*" in base:
        if text == "*":
            raise BadHost("'*' is not a pattern; a rule without 'to' matches every destination")
        raise BadHost("a star may only stand for whole labels in front, as in '*.example.org'")
    try:
        name = parse_host(base)
    except BadHost as error:
        raise BadHost(error.detail.replace("the host", "the name")) from None
    if not isinstance(name, str):
        raise BadHost("this is an address, not a name; write it without a pattern's prefix")
    return prefix + name


def matches(pattern: str, name: str) -> bool:
    """Whether one pattern matches one name; both already in the form that rules and inputs hold."""
    if pattern.startswith("*."):
        return name.endswith(pattern[1:])
    return name == pattern.removeprefix(".") or (pattern.startswith(".") and name.endswith(pattern))


class NameIndex:
    """Which numbered rules a name meets; the cost of a look-up grows with the name's labels only."""

    def __init__(self, pairs: Iterable[tuple[str, int]]) -> None:
        """`pairs`: a valid pattern and the number of the rule that holds it; both may repeat."""
        self._exact: dict[str, list[int]] = {}
        self._below: dict[str, list[int]] = {}
        self._labels_max = (
            0  # of any suffix; a name of a hundred labels costs no more than the deepest pattern
        )
        for pattern, number in sorted(set(pairs), key=lambda pair: pair[1]):
            base = pattern.removeprefix("*").removeprefix(".")
            if not pattern.startswith("*."):
                self._exact.setdefault(base, []).append(number)
            if pattern != base:
                self._below.setdefault(base, []).append(number)
                self._labels_max = max(self._labels_max, base.count(".") + 1)

    def __bool__(self) -> bool:
        return bool(self._exact or self._below)

    def lookup(self, name: str) -> list[int]:
        """The numbers of the rules with a pattern that matches `name`, ascending, each once."""
        return sorted({number for run in self.runs(name) for number in run})

    def runs(self, name: str) -> list[list[int]]:
        """The same numbers as ascending lists, one for each suffix that is known; a number may repeat; read only."""
        found = []
        exact = self._exact.get(name)
        if exact is not None:
            found.append(exact)
        end = len(name)
        for _ in range(self._labels_max):
            dot = name.rfind(".", 0, end)
            if dot < 0:
                break
            below = self._below.get(name[dot + 1 :])
            if below is not None:
                found.append(below)
            end = dot
        return found
