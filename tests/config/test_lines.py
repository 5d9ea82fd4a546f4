from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from typing import Any

import pytest
import tomlkit
from hypothesis import given, settings
from hypothesis import strategies as st

from doorward.config import lines as module
from doorward.config.lines import PATH_LENGTH_MAX, KeyPath, Lines

TEXT = '''\
# a policy
top = 1
"quoted key" = "x"  # [not.a.header]

[networks]
lan = [
  "10.0.0.0/8",   # ] not the end
  # a comment with a "quote
  "192.168.0.0/16",
]
inline = {deep = [1, {er = "]"}], "dotted key".x = 2}

[users.kim]
password = """
[users.fake]
password = "no"
"""
groups = ['a', "b]"]

[[rule]]
name = "first"
to = ["x"]
when.is.dotted = true
[[rule]]
name = \'\'\'
[[rule]]\'\'\'
to = [["a"], [
  "b"]]
[rule.inner]
key = 1979-05-27 07:32:00
[[rule.more]]
x = 1
[[rule.more]]
x = """"two quotes at the end"""""
last = 2'''


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("top",), 2),
        (("quoted key",), 3),
        (("networks",), 5),
        (("networks", "lan"), 6),
        (("networks", "lan", 0), 7),
        (("networks", "lan", 1), 9),
        (("networks", "inline", "deep", 1, "er"), 11),
        (("networks", "inline", "dotted key", "x"), 11),
        (("users", "kim"), 13),
        (("users", "kim", "groups", 1), 18),
        (("rule",), 20),
        (("rule", 0), 20),
        (("rule", 0, "to", 0), 22),
        (("rule", 0, "when", "is", "dotted"), 23),
        (("rule", 1), 24),
        (("rule", 1, "to"), 27),
        (("rule", 1, "to", 1, 0), 28),
        (("rule", 1, "inner", "key"), 30),
        (("rule", 1, "more", 1, "x"), 34),
        (("rule", 1, "more", 1, "last"), 35),
    ],
)
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_every_form_of_toml_keeps_its_line(path: KeyPath, line: int, line_end: str) -> None:
    text = TEXT.replace("\n", line_end)
    tomllib.loads(text)
    assert Lines(text).of(path) == line


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("users", "fake", "password"), 13),
        (("rule", 0, "missing"), 20),
        (("rule", 9), 20),
        (("nothing",), 1),
        ((), 1),
    ],
)
def test_a_path_that_is_missing_has_the_line_of_its_nearest_parent(path: KeyPath, line: int) -> None:
    # `users` itself has no header of its own: the first table below it stands for it.
    assert Lines(TEXT).of(path) == line


def test_a_value_nested_beyond_the_limit_has_the_line_of_what_holds_it() -> None:
    depth = PATH_LENGTH_MAX + 10
    text = "key = " + "[\n" * depth + "]" * depth + "\nafter = 1"
    lines = Lines(text)
    assert lines.of(("after",)) == text.count("\n") + 1
    assert lines.of(("key", *[0] * depth)) <= depth


def test_an_empty_text_has_one_line() -> None:
    assert Lines("").of(("rule", 0)) == 1


def paths(value: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, Any]]:
    if path:
        yield path, value
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from paths(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from paths(inner, (*path, index))


KEYS = st.sampled_from(
    ["a", "b-1", "with space", 'qu"ote', "dot.ted", "ü", "", "[x]", "#", "back\\slash", "'"]
)
LEAVES = st.one_of(
    st.integers(-9, 99),
    st.booleans(),
    st.floats(allow_nan=False),
    st.dates(),
    st.text(st.sampled_from("ab\"'[]{}#=,.\\\n "), max_size=6),
)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=8
)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(KEYS, VALUES, max_size=4))
def test_every_path_of_a_document_has_a_line_that_shows_it(document: dict[str, Any]) -> None:
    text = tomlkit.dumps(document)
    parsed = tomllib.loads(text)
    rows = text.split("\n")
    lines = Lines(text)
    for path, value in paths(parsed):
        row = rows[lines.of(path) - 1]
        last = path[-1]
        if isinstance(last, str):
            assert (
                tomlkit.key(last).as_string() in row or last in row or tomlkit.item(last).as_string() in row
            )
        elif isinstance(value, str):
            assert tomlkit.item(value).as_string().split("\n")[0] in row
        elif isinstance(value, bool):
            assert str(value).lower() in row
        elif isinstance(value, int):
            assert str(value) in row


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(TEXT.splitlines(keepends=True)), max_size=20).map("".join))
def test_any_text_that_is_accepted_can_be_scanned(text: str) -> None:
    try:
        parsed = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    lines = Lines(text)
    for path, _ in paths(parsed):
        assert 1 <= lines.of(path) <= text.count("\n") + 1


@pytest.mark.parametrize(
    ("table", "extent"),
    [
        (("networks",), (5, 11)),
        (("users", "kim"), (13, 18)),
        (("rule", 1), (24, 28)),
        (("rule", 1, "more", 1), (33, 35)),
        (("users",), None),
        ((), None),
        (("nothing",), None),
    ],
)
def test_the_lines_of_a_table_end_before_the_next_one_s_comments(
    table: KeyPath, extent: tuple[int, int] | None
) -> None:
    assert Lines(TEXT).extent(table) == extent
    assert Lines(TEXT.replace("[users.kim]", "# about kim\n\n[users.kim]")).extent(("networks",)) == (5, 11)


def test_a_long_run_of_plain_lines_is_no_different() -> None:
    text = "".join(f"k{number} = 1\n" for number in range(3_333)) + "[table]\nkey = 1\n"
    lines = Lines(text)
    assert lines.of(("k3332",)) == 3_333
    assert lines.of(("table", "key")) == 3_335


def test_no_pattern_repeats_a_group_possessively_which_pythons_before_3_11_5_get_wrong() -> None:
    patterns = [value.pattern for value in vars(module).values() if isinstance(value, re.Pattern)]
    assert len(patterns) > 5
    assert not [pattern for pattern in patterns if re.search(r"\)[*+?}]\+", pattern)]
