from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doorward.config.lines import KeyPath, Lines
from doorward.config.problems import (
    SUGGESTIONS_MAX,
    ConfigurationRefused,
    Problem,
    Report,
    did_you_mean,
    key_text,
)


def test_a_problem_names_file_line_and_key() -> None:
    problem = Problem(
        "doorward.toml", 31, ("rule", 2, "to", 0), 'unknown network "lann"; did you mean "lan"?'
    )
    assert str(problem) == 'doorward.toml:31: rule[2].to[0]: unknown network "lann"; did you mean "lan"?'


def test_a_problem_with_the_whole_file_has_no_line() -> None:
    assert (
        str(Problem("doorward.toml", 0, (), "there is no such file"))
        == "doorward.toml: there is no such file"
    )


def test_a_warning_says_that_it_is_one() -> None:
    assert (
        str(Problem("p", 1, ("rule", 0), "it can never match", "warning"))
        == "p:1: rule[0]: warning: it can never match"
    )


@given(st.text(), st.text(max_size=20), st.text())
def test_nothing_from_the_file_reaches_the_terminal_as_a_command(file: str, key: str, message: str) -> None:
    assert str(Problem(file, 1, ("networks", key), message)).isprintable()


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ((), ""),
        (("listen", "proxy", 0), "listen.proxy[0]"),
        (("networks", "my lan"), 'networks."my lan"'),
        (("", 1, 2, "x-y_Z"), '""[1][2].x-y_Z'),
    ],
)
def test_a_key_path_reads_like_the_file(path: KeyPath, text: str) -> None:
    assert key_text(path) == text


@pytest.mark.parametrize(
    ("word", "expected"),
    [("lann", '; did you mean "lan"?'), ("LAN", '; did you mean "lan"?'), ("zzz", ""), ("", "")],
)
def test_a_near_miss_is_recognised(word: str, expected: str) -> None:
    assert did_you_mean(word, ["lan", "office"]) == expected


def test_problems_come_in_the_order_of_the_file_each_once() -> None:
    report = Report("p", Lines("a = 1\nb = [1, 2]\nc = 3\n"))
    report.warning(("c",), "late")
    report.error(("b", 1), "second")
    report.error(("b", 0), "first")
    report.error(("b", 0), "first")
    assert [(problem.line, problem.message) for problem in report.problems()] == [
        (2, "first"),
        (2, "second"),
        (3, "late"),
    ]
    assert report.failed


def test_warnings_alone_are_no_failure() -> None:
    report = Report("p", Lines(""))
    report.warning((), "hm")
    assert not report.failed


def test_after_very_many_mistakes_they_are_still_reported_without_suggestions() -> None:
    report = Report("p", Lines(""))
    for number in range(SUGGESTIONS_MAX + 1):
        report.unknown(("rule", number), "network", "lann", ["lan"])
    assert [problem.message.endswith('"lan"?') for problem in report.problems()] == [
        True
    ] * SUGGESTIONS_MAX + [False]


def test_a_refusal_shows_every_problem() -> None:
    refusal = ConfigurationRefused([Problem("p", 1, (), "one"), Problem("p", 2, (), "two")])
    assert str(refusal) == "p:1: one\np:2: two"
