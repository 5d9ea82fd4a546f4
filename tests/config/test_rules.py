from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest

from doorward.config.definitions import Definitions
from doorward.config.document import RuleTable
from doorward.config.lines import Lines
from doorward.config.ports import read_protocols
from doorward.config.problems import Report
from doorward.config.rules import RuleReader
from doorward.policy.model import Window

NETWORK = ip_network("10.0.0.0/8")
REPORT = Report("p", Lines(""))
DEFINITIONS = Definitions(
    networks={"lan": (NETWORK,), "broken": ()},
    domains={"code": ("example.org",)},
    protocols=read_protocols({}, REPORT),
    schedules={"office": (Window(420, 1080),)},
    users={},
    groups=frozenset({"engineering"}),
)


def rule(**fields: Any) -> RuleTable:
    return RuleTable(name=fields.pop("name", ["r"])[0], action="allow", protocols=["any"], **fields)


def test_lists_that_occur_often_are_shared() -> None:
    reader = RuleReader(DEFINITIONS, Report("p", Lines("")))
    one = reader.read(0, rule(name=["a"], to=["network:lan", "192.0.2.1"]))
    two = reader.read(1, rule(name=["b"], to=["network:lan", "192.0.2.1"]))
    assert one.to_networks is two.to_networks


def test_the_same_mistake_in_two_rules_is_reported_for_both() -> None:
    report = Report("p", Lines(""))
    reader = RuleReader(DEFINITIONS, report)
    for index, name in enumerate("ab"):
        reader.read(index, rule(name=[name], to=["network:nowhere"]))
    assert [problem.path for problem in report.problems()] == [("rule", 0, "to", 0), ("rule", 1, "to", 0)]


@pytest.mark.parametrize(
    ("entry", "is_network"),
    [
        ("10.0.0.1", True),
        ("10.0.0.1-10.0.0.9", True),
        ("10.0.0.1 - 10.0.0.9", True),
        ("2001:db8::1", True),
        ("::/0", True),
        ("example.org", False),
        ("*.example-1.org", False),
        (".example.org", False),
        ("fade.cafe", False),
        ("localhost", False),
        ("1.example", False),
    ],
)
def test_addresses_and_names_are_told_apart(entry: str, is_network: bool) -> None:
    report = Report("p", Lines(""))
    found = RuleReader(DEFINITIONS, report).read(0, rule(to=[entry]))
    assert not report.failed
    assert (found.to_networks is not None, found.to_names is not None) == (is_network, not is_network)


def test_uses_of_definitions_are_remembered() -> None:
    reader = RuleReader(DEFINITIONS, Report("p", Lines("")))
    reader.read(0, RuleTable(name="a", action="deny", protocols=["any"], to=["domain:code"], when=["office"]))
    assert reader.used == {("domains", "code"), ("schedules", "office")}


def test_a_definition_that_is_broken_is_not_reported_again_by_its_users() -> None:
    report = Report("p", Lines(""))
    RuleReader(DEFINITIONS, report).read(0, rule(to=["network:broken"]))
    assert report.problems() == []


def test_a_group_is_no_user() -> None:
    report = Report("p", Lines(""))
    RuleReader(DEFINITIONS, report).read(0, rule(users=["engineering"]))
    assert [problem.message for problem in report.problems()] == [
        'unknown user "engineering"; did you mean "group:engineering"?'
    ]


def test_programs_are_names_of_files_or_whole_paths() -> None:
    report = Report("p", Lines(""))
    made = RuleReader(DEFINITIONS, report).read(0, rule(process=["git", "/usr/bin/curl", "my tool"]))
    assert made.process == frozenset({"git", "/usr/bin/curl", "my tool"})
    assert report.errors == 0


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("bin/git", '"bin/git": write the file\'s name alone, or its whole path'),
        ("./git", '"./git": write the file\'s name alone, or its whole path'),
        ("/usr/../bin/git", '"/usr/../bin/git": write "/bin/git"'),
        ("/usr/bin/", '"/usr/bin/": write "/usr/bin"'),
        ("py*", '"py*": there are no wildcards here'),
    ],
)
def test_no_other_way_to_write_a_program_is_taken(entry: str, said: str) -> None:
    report = Report("p", Lines(""))
    RuleReader(DEFINITIONS, report).read(0, rule(process=[entry]))
    assert [problem.message for problem in report.problems()] == [said]
