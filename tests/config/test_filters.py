from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import pytest

from doorward.config import filters
from doorward.config.document import Document, FilterTable, RuleTable
from doorward.config.filters import ENTRY_POINT_GROUP, NESTING_MAX, read_filters
from doorward.config.lines import Lines
from doorward.config.model import FilterSetting, RuleSetting
from doorward.config.ports import EVERY_PORT, read_protocols
from doorward.config.problems import Report
from doorward.policy.model import PortRange


def read(
    directory: Path, *tables: FilterTable, rules: Sequence[RuleTable] = ()
) -> tuple[tuple[FilterSetting, ...], list[str]]:
    report = Report("p", Lines(""))
    document = Document(filter=list(tables), rule=list(rules))
    found = read_filters(document, directory, read_protocols({}, report), report)
    return found, [problem.message for problem in report.problems()]


def rule(name: str, **filters: object) -> RuleTable:
    return RuleTable(name=name, action="allow", protocols=["any"], filters=filters)


def test_a_file_is_looked_for_beside_the_policy(tmp_path: Path) -> None:
    (tmp_path / "shout.py").write_text("")
    (found,), problems = read(
        tmp_path, FilterTable(name="shout", use="shout.py", protocols=["https", "tcp/25"])
    )
    assert problems == []
    assert found.use == str(tmp_path / "shout.py")
    assert found.protocols == (PortRange("tcp", 443, 443), PortRange("tcp", 25, 25))
    assert found.protocol_names == ("https", "tcp/25")


def test_without_protocols_the_filter_decides_and_any_means_every_port(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("")
    found, _ = read(
        tmp_path, FilterTable(name="a", use="a.py"), FilterTable(name="b", use="a.py", protocols=["any"])
    )
    assert [setting.protocols for setting in found] == [None, EVERY_PORT]


@pytest.mark.parametrize("use", ["missing.py", "./missing", "sub/", "a\0.py"])
def test_a_file_that_is_not_there_is_reported(tmp_path: Path, use: str) -> None:
    (tmp_path / "sub").mkdir()
    assert read(tmp_path, FilterTable(name="a", use=use))[1][0].startswith("there is no file")


def test_an_installed_filter_is_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = EntryPoints([EntryPoint("greeter", "somewhere:Greeter", ENTRY_POINT_GROUP)])
    monkeypatch.setattr(filters, "entry_points", lambda group: installed.select(group=group))
    assert read(tmp_path, FilterTable(name="a", use="greeter"))[1] == []
    assert read(tmp_path, FilterTable(name="a", use="greater"))[1] == [
        'unknown filter "greater"; did you mean "greeter"?'
    ]


def test_a_built_in_filter_needs_no_package(tmp_path: Path) -> None:
    (found,), problems = read(tmp_path, FilterTable(name="files", use="ftp"))
    assert (problems, found.use) == ([], "ftp")
    assert read(tmp_path, FilterTable(name="a", use="ftpp"))[1] == [
        'unknown filter "ftpp"; did you mean "ftp"?'
    ]


def test_what_rules_say_goes_to_the_filter_they_name_in_their_order(tmp_path: Path) -> None:
    rules = [
        rule("read", ftp={"read_only": True}, other=False),
        rule("none"),
        rule("off", ftp=False),
        rule("as it is", ftp={}),
    ]
    tables = [FilterTable(name="ftp", use="ftp"), FilterTable(name="other", use="ftp")]
    (ftp, other), problems = read(tmp_path, *tables, rules=rules)
    assert problems == []
    assert ftp.rules == (
        RuleSetting("read", {"read_only": True}, 1),
        RuleSetting("off", None, 1),
        RuleSetting("as it is", {}, 1),
    )
    assert other.rules == (RuleSetting("read", None, 1),)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        (True, "a filter is on already"),
        (1, "expected a table of settings, or false"),
        (0, "expected a table of settings, or false"),
        ("off", "expected a table of settings, or false"),
        ([], "expected a table of settings, or false"),
        (date(2026, 1, 1), "expected a table of settings, or false"),
    ],
)
def test_a_rule_says_a_table_or_false(tmp_path: Path, settings: object, problem: str) -> None:
    found, problems = read(tmp_path, FilterTable(name="ftp", use="ftp"), rules=[rule("r", ftp=settings)])
    assert problem in problems[0]
    assert found[0].rules == ()


def test_a_filter_that_nobody_defined_is_reported(tmp_path: Path) -> None:
    tables = [FilterTable(name="ftp", use="ftp")]
    assert read(tmp_path, *tables, rules=[rule("r", fpt=False)])[1] == [
        'unknown filter "fpt"; did you mean "ftp"?'
    ]


def nested(levels: int) -> dict[str, object]:
    found: dict[str, object] = {}
    for _ in range(levels - 1):
        found = {"a": [found]} if levels % 2 else {"a": found}
    return found


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"a": 2**63}, "64 bits"),
        ({"a": [{"b": -(2**63) - 1}]}, "64 bits"),
        (nested(NESTING_MAX + 2), "levels deep"),
        (nested(5000), "levels deep"),
    ],
)
def test_settings_that_nobody_could_walk_are_reported(
    tmp_path: Path, settings: dict[str, object], told: str
) -> None:
    assert told in read(tmp_path, FilterTable(name="ftp", use="ftp", settings=settings))[1][0]
    tables = [FilterTable(name="ftp", use="ftp")]
    assert told in read(tmp_path, *tables, rules=[rule("r", ftp=settings)])[1][0]


def test_settings_of_every_kind_are_handed_on_as_they_are(tmp_path: Path) -> None:
    settings = {"a": [1.5, {"b": 2**63 - 1}], "c": date(2026, 1, 1), "d": True, "e": nested(NESTING_MAX - 2)}
    (found,), problems = read(
        tmp_path, FilterTable(name="ftp", use="ftp", settings=settings), rules=[rule("r", ftp=settings)]
    )
    assert problems == []
    assert found.settings == settings
    assert found.rules == (RuleSetting("r", settings, 1),)
