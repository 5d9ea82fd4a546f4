from __future__ import annotations

from ipaddress import ip_network

import argon2

from doorward.config.definitions import Definitions, read_definitions
from doorward.config.document import Document, ScheduleTable, UserTable
from doorward.config.lines import Lines
from doorward.config.problems import Report
from doorward.policy.model import Window

HASH = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash("x")


def read(document: Document) -> tuple[Definitions, list[str]]:
    report = Report("p", Lines(""))
    definitions = read_definitions(document, report)
    return definitions, [str(problem) for problem in report.problems()]


def test_a_definition_with_a_mistake_stays_known_under_its_name() -> None:
    definitions, problems = read(Document(networks={"lan": ["nonsense", "10.0.0.0/8"]}))
    assert len(problems) == 1
    assert definitions.networks == {"lan": (ip_network("10.0.0.0/8"),)}


def test_an_entry_that_was_reported_before_is_passed_over() -> None:
    document = Document(networks={"a": [""]}, domains={"b": [""]}, users={"kim": UserTable(password="")})
    assert read(document)[1] == []


def test_members_come_from_users_and_from_groups() -> None:
    document = Document(
        users={"kim": UserTable(password=HASH, groups=["a"]), "lee": UserTable(password=HASH)},
        groups={"b": ["kim"], "empty": []},
    )
    definitions, problems = read(document)
    assert problems == []
    assert definitions.users["kim"].groups == {"a", "b"}
    assert definitions.users["lee"].groups == frozenset()
    assert definitions.groups == {"a", "b", "empty"}


def test_a_schedule_with_a_mistake_gives_no_windows() -> None:
    definitions, problems = read(Document(schedules={"office": ScheduleTable(days=["mon", "moon"])}))
    assert len(problems) == 1
    assert definitions.schedules == {"office": ()}


def test_a_schedule_without_hours_is_whole_days() -> None:
    definitions, _ = read(Document(schedules={"monday": ScheduleTable(days=["mon"])}))
    assert definitions.schedules == {"monday": (Window(0, 1440),)}
