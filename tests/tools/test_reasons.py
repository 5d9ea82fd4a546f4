from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest
from tests.tools.trees import plant
from tools.reasons import check, given
from tools.tree import modules

ERRORS = """
    class ProtocolError(Exception):
        slug = "protocol"

        def __init__(self, reason: str, detail: str = "") -> None: ...

    class WireError(Exception):
        def __init__(self, reason: str) -> None: ...
    """


def reasons(root: Path, text: str) -> set[str]:
    """What the text gives over what ERRORS gives by itself."""
    plant(root, {"src/errors.py": ERRORS, "src/a.py": text})
    return set(given(modules(root, "src"))) - {"protocol"}


@pytest.mark.parametrize(
    "text",
    [
        'raise ProtocolError("found", "detail_is_not_one")',
        'raise errors.ProtocolError("found")',
        'raise ProtocolError(reason="found")',
        'FOUND: Final = "found"\nraise ProtocolError(FOUND)',
        'raise ProtocolError(constants.FOUND)\nFOUND = "found"',
        'KINDS = {1: "found"}\nraise ProtocolError(KINDS[kind])',
        'class BadHost(ValueError):\n    reason: Final = "found"',
        'class Reset(ProtocolError):\n    slug = "found"',
        'def deny(self, reason: str = "found") -> None: ...',
        'async def deny(*, reason: str = "found") -> None: ...',
        'class End(NamedTuple):\n    how: str\n    by: str\nEnd("found", "internal")',
        'class Refusal:\n    action: str\n    reason: str\nRefusal("deny", "found")',
        'class A:\n    def kill(self, who, how): ...\nself.kill("me", "found")',
        'class A:\n    @staticmethod\n    def kill(who, how): ...\nA.kill("me", "found")',
        'End: TypeAlias = Literal["found"]',
        'slug_or(text, "found")\ndef slug_or(reason, otherwise): ...',
    ],
)
def test_a_reason_is_found_wherever_it_is_given(tmp_path: Path, text: str) -> None:
    assert reasons(tmp_path, text) == {"found"}


@pytest.mark.parametrize(
    "text",
    [
        'reason = "one" if late else "two"',
        'raise ProtocolError("one" if late else "two")',
        'self.kill(how=told or "one")\nself.kill(how="two")',
        'End: TypeAlias = Literal["one", "two"]',
    ],
)
def test_of_several_reasons_each_is_found(tmp_path: Path, text: str) -> None:
    assert reasons(tmp_path, text) == {"one", "two"}


@pytest.mark.parametrize(
    "text",
    [
        'raise ProtocolError(reason, "detail")',
        'raise ProtocolError("A sentence is no slug.")',
        'raise WireError("misuse")',
        'raise ValueError("found")',
        'text.find("found", end=3)',
        'def f(name: str = "found") -> None: ...',
        "reason: str\nf(reason)",
    ],
)
def test_other_words_are_no_reasons(tmp_path: Path, text: str) -> None:
    assert reasons(tmp_path, text) == set()


def page(*slugs: str) -> str:
    rows = "".join(f"| `{slug}` | what happened | what to do |\n" for slug in slugs)
    return dedent("# Reasons\n\n| reason | … | … |\n| --- | --- | --- |\n") + rows


def test_a_page_with_a_row_for_each_reason_is_good(tmp_path: Path) -> None:
    plant(tmp_path, {"src/errors.py": ERRORS, "docs/reasons.md": page("protocol")})
    assert list(check(tmp_path)) == []


def test_a_reason_without_row_and_a_row_without_reason_are_told(tmp_path: Path) -> None:
    plant(tmp_path, {"src/errors.py": ERRORS, "docs/reasons.md": page("protcol", "protcol")})
    assert [str(breach) for breach in check(tmp_path)] == [
        "src/errors.py:3: reason 'protocol' has no row in docs/reasons.md; say what it means there",
        "docs/reasons.md:5: nothing in src gives the reason `protcol`; delete the row",
    ]
