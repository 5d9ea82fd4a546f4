"""What the names in a policy stand for: networks, domains, schedules, users and groups.

A definition with a mistake is reported once, where it stands, and stays known under its name, so that rules which
use it are not reported as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from msgspec import Struct

from doorward.config.document import Document, ScheduleTable
from doorward.config.lines import KeyPath
from doorward.config.model import User
from doorward.config.passwords import hash_mistake
from doorward.config.ports import read_protocols
from doorward.config.problems import Report
from doorward.policy.address import BadHost
from doorward.policy.model import IPNetwork, Protocols, Window
from doorward.policy.names import parse_pattern
from doorward.policy.networks import parse_network
from doorward.policy.schedule import parse_days, parse_hours, parse_schedule

Parsed = TypeVar("Parsed")


class Definitions(Struct, frozen=True):
    """Everything that rules and filters may name."""

    networks: Mapping[str, tuple[IPNetwork, ...]]
    domains: Mapping[str, tuple[str, ...]]
    protocols: Protocols
    schedules: Mapping[str, tuple[Window, ...]]
    users: Mapping[str, User]
    groups: frozenset[str]


def read_definitions(document: Document, report: Report) -> Definitions:
    """Every name of the document and what it stands for; what does not read as it should is reported and left out."""
    users = _users(document, report)
    groups = frozenset(document.groups).union(*(user.groups for user in users.values()))
    return Definitions(
        networks={
            name: tuple(
                network
                for networks in parsed(entries, ("networks", name), parse_network, report)
                for network in networks
            )
            for name, entries in document.networks.items()
        },
        domains={
            name: tuple(parsed(entries, ("domains", name), parse_pattern, report))
            for name, entries in document.domains.items()
        },
        protocols=read_protocols(document.protocols, report),
        schedules={name: _schedule(name, table, report) for name, table in document.schedules.items()},
        users=users,
        groups=groups,
    )


def parsed(
    entries: Sequence[str], path: KeyPath, parse: Callable[[str], Parsed], report: Report
) -> list[Parsed]:
    """What each entry means; an entry that means nothing is reported and left out."""
    found = []
    for index, entry in enumerate(entries):
        try:
            if entry:
                found.append(parse(entry))
        except BadHost as mistake:
            report.error((*path, index), f'"{entry}": {mistake.detail}')
        except ValueError as mistake:
            report.error((*path, index), f'"{entry}": {mistake}')
    return found


def _schedule(name: str, table: ScheduleTable, report: Report) -> tuple[Window, ...]:
    path = ("schedules", name)
    days = parsed(table.days, (*path, "days"), parse_days, report)
    hours = parsed(table.hours, (*path, "hours"), parse_hours, report)
    right = len(days) == len(table.days) and len(hours) == len(table.hours)
    return parse_schedule(table.days, table.hours) if right else ()


def _users(document: Document, report: Report) -> dict[str, User]:
    groups: dict[str, set[str]] = {name: set() for name in document.users}
    for name, table in document.users.items():
        groups[name].update(group for group in table.groups if group)
        _report_twice(table.groups, ("users", name, "groups"), report)
    for group, members in document.groups.items():
        _report_twice(members, ("groups", group), report)
        for index, member in enumerate(members):
            if member in groups:
                groups[member].add(group)
            elif member:
                report.unknown(("groups", group, index), "user", member, document.users)
    _report_alike(document.users, report)
    for name, table in document.users.items():
        mistake = hash_mistake(table.password) if table.password else ""
        if mistake:
            report.error(("users", name, "password"), mistake)
    return {
        name: User(name, table.password, frozenset(groups[name])) for name, table in document.users.items()
    }


def _report_twice(entries: Sequence[str], path: KeyPath, report: Report) -> None:
    for index, entry in enumerate(entries):
        if entry and entry in entries[:index]:
            report.error((*path, index), f'"{entry}" is listed twice')


def _report_alike(names: Iterable[str], report: Report) -> None:
    """Two people whose names differ by case alone would be mixed up by everyone who reads the log."""
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(name.casefold(), name)
        if other != name:
            report.error(("users", name), f'differs from user "{other}" by upper and lower case alone')
