"""Rules: every name in them replaced by what it stands for.

A list that occurs in many rules is worked out once and shared, which keeps a policy of 100,000 rules small.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from posixpath import normpath
from typing import Final, TypeAlias, TypeVar, cast

from msgspec import UNSET, UnsetType

from doorward.config.definitions import Definitions
from doorward.config.document import RuleTable
from doorward.config.lines import KeyPath
from doorward.config.ports import read_ports
from doorward.config.problems import Report, did_you_mean
from doorward.config.publish_tables import PublishTable
from doorward.config.upstream_tables import RouteTable
from doorward.policy.address import BadHost, parse_host
from doorward.policy.model import Action, IPNetwork, PortRange, Rule, Window
from doorward.policy.names import parse_pattern
from doorward.policy.networks import parse_network

Meaning = TypeVar("Meaning")
Destinations: TypeAlias = tuple[tuple[IPNetwork, ...] | None, tuple[str, ...] | None]
People: TypeAlias = tuple[frozenset[str] | None, frozenset[str] | None]

_NAME_AND_PORT: Final = re.compile(r"([^:/]+):[0-9]+")
_LIKE_NETWORK: Final = re.compile(r"[0-9.]+(?:\s*-\s*[0-9.]+)?|.*[:/].*", re.DOTALL)


class RuleReader:
    """Reads the rules of one policy, and remembers which definitions they used as `(kind, name)`."""

    def __init__(self, definitions: Definitions, report: Report) -> None:
        self._definitions = definitions
        self._report = report
        self._meanings: dict[tuple[str, tuple[str, ...]], object] = {}
        self._first: dict[str, int] = {}
        self.used: set[tuple[str, str]] = set()

    def read(self, index: int, table: RuleTable) -> Rule:
        """The rule; where it has mistakes they are reported, and what is answered must not be used."""
        path = ("rule", index)
        self._check_name(table.name, path)
        networks, names = self._once(table.to, (*path, "to"), self._destinations) or (None, None)
        users, groups = self._once(table.users, (*path, "users"), self._people) or (None, None)
        return Rule(
            name=table.name,
            action=Action(table.action),
            line=self._report.line(path),
            sources=self._once(table.from_, (*path, "from"), self._sources),
            to_networks=networks,
            to_names=names,
            ports=self._once(table.protocols, (*path, "protocols"), self._ports),
            users=users,
            groups=groups,
            windows=self._once(table.when, (*path, "when"), self._windows),
            process=self._once(table.process, (*path, "process"), self._programs),
        )

    def read_route(self, index: int, table: RouteTable) -> Rule:
        """What a route is for, as a rule that allows; mistakes as for `read`."""
        path = ("route", index)
        networks, names = self._once(table.to, (*path, "to"), self._destinations) or (None, None)
        users, groups = self._once(table.users, (*path, "users"), self._people) or (None, None)
        return Rule(
            name=table.name,
            action=Action.ALLOW,
            line=self._report.line(path),
            sources=self._once(table.from_, (*path, "from"), self._sources),
            to_networks=networks,
            to_names=names,
            ports=self._once(table.protocols, (*path, "protocols"), self._ports),
            users=users,
            groups=groups,
        )

    def read_published(self, index: int, table: PublishTable) -> Rule:
        """Who may come to a published server and when, as a rule that allows; mistakes as for `read`."""
        path = ("publish", index)
        return Rule(
            name=table.name,
            action=Action.ALLOW,
            line=self._report.line(path),
            sources=self._once(table.from_, (*path, "from"), self._sources),
            windows=self._once(table.when, (*path, "when"), self._windows),
        )

    def networks(self, entries: list[str], path: KeyPath) -> tuple[IPNetwork, ...]:
        """Addresses of clients as in the `from` of a rule; mistakes as for `read`."""
        return self._sources(entries, path)

    def _once(
        self, entries: list[str] | UnsetType, path: KeyPath, read: Callable[[Sequence[str], KeyPath], Meaning]
    ) -> Meaning | None:
        """What a list means; worked out anew only while there are mistakes, which each have their own place."""
        if entries is UNSET:
            return None
        key = (str(path[-1]), tuple(entries))
        if key in self._meanings:
            return cast(Meaning, self._meanings[key])
        before = self._report.errors
        meaning = read(entries, path)
        if self._report.errors == before:
            self._meanings[key] = meaning
        return meaning

    def _check_name(self, name: str, path: KeyPath) -> None:
        first = self._first.setdefault(name, cast(int, path[1]))
        if name and first != path[1]:
            line = self._report.line(("rule", first))
            self._report.error((*path, "name"), f'the rule on line {line} is called "{name}" too')

    def _ports(self, entries: Sequence[str], path: KeyPath) -> tuple[PortRange, ...] | None:
        return read_ports(entries, path, self._definitions.protocols, self._report)

    def _sources(self, entries: Sequence[str], path: KeyPath) -> tuple[IPNetwork, ...]:
        found: list[IPNetwork] = []
        for index, entry in enumerate(entries):
            if entry.startswith("network:"):
                found += self._network(entry, (*path, index))
            elif entry.startswith("domain:"):
                self._report.error((*path, index), f'"{entry}": clients are known by address, never by name')
            elif entry:
                found += self._parsed_network(entry, (*path, index))
        return tuple(dict.fromkeys(found))

    def _destinations(self, entries: Sequence[str], path: KeyPath) -> Destinations:
        networks: list[IPNetwork] = []
        names: list[str] = []
        for index, entry in enumerate(entries):
            place = (*path, index)
            if entry.startswith("network:"):
                networks += self._network(entry, place)
            elif entry.startswith("domain:"):
                names += self._domain(entry, place)
            elif _LIKE_NETWORK.fullmatch(entry):
                networks += self._parsed_network(entry, place)
            elif entry:
                names += self._pattern(entry, place)
        return tuple(dict.fromkeys(networks)) or None, tuple(dict.fromkeys(names)) or None

    def _network(self, entry: str, path: KeyPath) -> tuple[IPNetwork, ...]:
        name = entry.removeprefix("network:")
        self.used.add(("networks", name))
        if name not in self._definitions.networks:
            self._report.unknown(path, "network", name, self._definitions.networks)
        return self._definitions.networks.get(name, ())

    def _domain(self, entry: str, path: KeyPath) -> tuple[str, ...]:
        name = entry.removeprefix("domain:")
        self.used.add(("domains", name))
        if name not in self._definitions.domains:
            self._report.unknown(path, "domain", name, self._definitions.domains)
        return self._definitions.domains.get(name, ())

    def _parsed_network(self, entry: str, path: KeyPath) -> tuple[IPNetwork, ...]:
        try:
            return parse_network(entry)
        except ValueError as mistake:
            self._report.error(path, f'"{entry}": {self._meant(entry) or _disguised(entry) or mistake}')
            return ()

    def _meant(self, entry: str) -> str:
        """What somebody who wrote `entry` where a network stands probably wanted; nothing if unclear."""
        if "://" in entry:
            return 'write the host\'s name alone; ports and protocols belong in "protocols"'
        if with_port := _NAME_AND_PORT.fullmatch(entry):
            return f'write "{with_port[1]}" here; a port belongs in "protocols"'
        kind, colon, name = entry.partition(":")
        if entry in self._definitions.networks:
            return f'did you mean "network:{entry}"?'
        for known in ("network", "domain"):
            if colon and did_you_mean(kind, [known]):
                return f'did you mean "{known}:{name}"?'
        return ""

    def _pattern(self, entry: str, path: KeyPath) -> tuple[str, ...]:
        for kind, known in (("network", self._definitions.networks), ("domain", self._definitions.domains)):
            if entry in known:
                self._report.warning(
                    path, f'this is the host "{entry}"; for the {kind} write "{kind}:{entry}"'
                )
        try:
            return (parse_pattern(entry),)
        except BadHost as mistake:
            self._report.error(path, f'"{entry}": {_disguised(entry) or mistake.detail}')
            return ()

    def _people(self, entries: Sequence[str], path: KeyPath) -> People:
        users: list[str] = []
        groups: list[str] = []
        for index, entry in enumerate(entries):
            kind, colon, group = entry.partition(":")
            if kind == "group" and colon:
                groups.append(group)
                if group not in self._definitions.groups:
                    self._report.unknown((*path, index), "group", group, sorted(self._definitions.groups))
            elif entry:
                users.append(entry)
                if entry in self._definitions.groups and entry not in self._definitions.users:
                    self._report.error(
                        (*path, index), f'unknown user "{entry}"; did you mean "group:{entry}"?'
                    )
                elif entry not in self._definitions.users:
                    self._report.unknown((*path, index), "user", entry, self._definitions.users)
        return frozenset(users) or None, frozenset(groups) or None

    def _programs(self, entries: Sequence[str], path: KeyPath) -> frozenset[str]:
        for index, entry in enumerate(entries):
            if "/" in entry and not entry.startswith("/"):
                self._report.error(
                    (*path, index), f'"{entry}": write the file\'s name alone, or its whole path'
                )
            elif entry and entry != (plain := normpath(entry)):
                self._report.error((*path, index), f'"{entry}": write "{plain}"')
            elif "*" in entry:
                self._report.error((*path, index), f'"{entry}": there are no wildcards here')
        return frozenset(filter(None, entries))

    def _windows(self, entries: Sequence[str], path: KeyPath) -> tuple[Window, ...]:
        found: list[Window] = []
        for index, entry in enumerate(entries):
            self.used.add(("schedules", entry))
            if entry in self._definitions.schedules:
                found += self._definitions.schedules[entry]
            elif entry:
                self._report.unknown((*path, index), "schedule", entry, self._definitions.schedules)
        return tuple(dict.fromkeys(found))


def _disguised(entry: str) -> str:
    """What to say of an address written as few people read it (`0x7f.1`, `127.1`); nothing if it is none."""
    try:
        address = parse_host(entry)
    except BadHost:
        return ""
    return "" if isinstance(address, str) else f'write this address as "{address}"'
