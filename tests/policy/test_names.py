from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doorward.policy.address import BadHost
from doorward.policy.names import NameIndex, matches, parse_pattern

NAMES = st.lists(st.sampled_from(["a", "b", "org"]), min_size=1, max_size=4).map(".".join)
PATTERNS = st.builds(str.__add__, st.sampled_from(["", ".", "*."]), NAMES)


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("example.org", "example.org", True),
        ("example.org", "www.example.org", False),
        ("example.org", "badexample.org", False),
        ("*.example.org", "www.example.org", True),
        ("*.example.org", "a.b.c.example.org", True),
        ("*.example.org", "example.org", False),
        ("*.example.org", "badexample.org", False),
        (".example.org", "example.org", True),
        (".example.org", "a.b.example.org", True),
        (".example.org", "badexample.org", False),
        (".example.org", "example.org.evil", False),
        ("example.org", "org", False),
    ],
)
def test_a_pattern_is_a_name_the_names_below_it_or_both(pattern: str, name: str, expected: bool) -> None:
    assert matches(pattern, name) is expected
    assert NameIndex([(pattern, 7)]).lookup(name) == ([7] if expected else [])


@pytest.mark.parametrize(
    ("text", "pattern"),
    [("Example.ORG.", "example.org"), ("*.Example.org", "*.example.org"), (".example.org.", ".example.org")],
)
def test_a_pattern_is_kept_in_the_form_that_names_have(text: str, pattern: str) -> None:
    assert parse_pattern(text) == pattern


@pytest.mark.parametrize(
    "text",
    [
        "",
        "*",
        "*.",
        ".",
        "*.*.org",
        "www.*.org",
        "ex*.org",
        "..org",
        "a b",
        "bücher.de",
        "10.0.0.1",
        "*.1",
        "[::1]",
        "a:1",
    ],
)
def test_what_is_no_pattern_is_refused_with_a_sentence(text: str) -> None:
    with pytest.raises(BadHost, match=r"\w+ \w+ \w+"):
        parse_pattern(text)


@given(st.lists(st.tuples(PATTERNS, st.integers(0, 20)), max_size=20), NAMES)
def test_the_index_answers_what_trying_every_pattern_answers(pairs: list[tuple[str, int]], name: str) -> None:
    index = NameIndex(pairs)
    expected = sorted({number for pattern, number in pairs if matches(pattern, name)})
    assert index.lookup(name) == expected
    assert sorted({number for run in index.runs(name) for number in run}) == expected
    assert all(run == sorted(run) for run in index.runs(name))
    assert bool(index) == bool(pairs)


def test_a_name_of_many_labels_costs_no_more_probes_than_the_deepest_pattern_has_labels() -> None:
    index = NameIndex([("*.example.org", 0)])
    probes = []

    class Counting(dict[str, list[int]]):
        def get(self, key: str, default: object = None) -> object:  # type: ignore[override] # counts, then asks
            probes.append(key)
            return super().get(key)

    index._below = Counting(index._below)
    assert index.lookup("a." * 100 + "example.org") == [0]
    assert probes == ["org", "example.org"]
