"""Application filters, and what rules say to them. Each must be a file that exists, or one built in or installed.

An installed filter is an entry point of the group `doorward.filters` (Python packaging's "entry points
specification"). Nothing is imported here: that a filter's code is sound is found out when it is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from msgspec import UNSET

from doorward.config.document import Document, FilterTable, RuleTable
from doorward.config.lines import KeyPath
from doorward.config.model import FilterSetting, RuleSetting
from doorward.config.ports import ANY, EVERY_PORT, read_ports
from doorward.config.problems import Report
from doorward.config.publish_tables import PublishTable
from doorward.config.source import kind_of
from doorward.policy.model import PortRange, Protocols

if TYPE_CHECKING:
    from importlib.metadata import EntryPoints

ENTRY_POINT_GROUP: Final = "doorward.filters"
BUILT_IN: Final[Mapping[str, str]] = {
    "ftp": "doorward.filters.ftp:FtpFilter",
    "tftp": "doorward.filters.tftp:TftpFilter",
}
"""The filters that come with Doorward: module and class. No installed package can take their names."""

NESTING_MAX: Final = 32
_WHOLE_NUMBERS: Final = range(-(2**63), 2**63)
"""What TOML promises to keep (TOML 1.0, "Integer")."""


def read_filters(
    document: Document, directory: Path, protocols: Protocols, report: Report
) -> tuple[FilterSetting, ...]:
    """The filters in their order; `directory` is where relative files are looked for."""
    found: list[FilterSetting] = []
    rules = _rule_settings(document, report)
    first: dict[str, int] = {}
    for index, table in enumerate(document.filter):
        path = ("filter", index)
        other = first.setdefault(table.name, index)
        if table.name and other != index:
            line = report.line(("filter", other))
            report.error((*path, "name"), f'the filter on line {line} is called "{table.name}" too')
        found.append(
            FilterSetting(
                name=table.name,
                use=_use(table.use, index, directory, report),
                line=report.line(path),
                protocols=_ports(table, index, protocols, report),
                protocol_names=() if table.protocols is UNSET else tuple(table.protocols),
                fail=table.fail,
                settings=_checked(table.settings, (*path, "settings"), report),
                rules=tuple(rules.get(table.name, ())),
            )
        )
    return tuple(found)


def _ports(
    table: FilterTable, index: int, protocols: Protocols, report: Report
) -> tuple[PortRange, ...] | None:
    if table.protocols is UNSET:
        return None
    if table.protocols == [ANY]:
        return EVERY_PORT
    return read_ports(table.protocols, ("filter", index, "protocols"), protocols, report)


def entry_points(*, group: str) -> EntryPoints:
    """The library's. It takes a while to load, and most policies name no installed filter."""
    from importlib import metadata

    return metadata.entry_points(group=group)


def _use(use: str, index: int, directory: Path, report: Report) -> str:
    path = ("filter", index, "use")
    if use.endswith(".py") or "/" in use:
        file = directory / use
        if kind_of(file) != "file":
            report.error(path, f'there is no file "{file}"')
        return str(file)
    installed = entry_points(group=ENTRY_POINT_GROUP).names
    if use and use not in installed and use not in BUILT_IN:
        report.unknown(path, "filter", use, sorted({*installed, *BUILT_IN}))
    return use


def _rule_settings(document: Document, report: Report) -> dict[str, list[RuleSetting]]:
    """What rules say to each filter, by its name."""
    names = [table.name for table in document.filter]
    found: dict[str, list[RuleSetting]] = {name: [] for name in names}
    tables: list[tuple[str, int, RuleTable | PublishTable]] = [
        *(("rule", index, table) for index, table in enumerate(document.rule)),
        *(("publish", index, table) for index, table in enumerate(document.publish)),
    ]
    for key, index, rule in tables:
        for name, settings in rule.filters.items():
            path = (key, index, "filters", name)
            if name not in found:
                report.unknown(path, "filter", name, names)
            elif isinstance(settings, dict):
                checked = _checked(settings, path, report)
                found[name].append(RuleSetting(rule.name, checked, report.line(path)))
            elif settings is False:
                found[name].append(RuleSetting(rule.name, None, report.line(path)))
            elif settings is True:
                report.error(
                    path, "a filter is on already; write false to turn it off, or a table of settings"
                )
            else:
                report.error(path, "expected a table of settings, or false to turn the filter off")
    return found


def _checked(settings: dict[str, Any], path: KeyPath, report: Report) -> dict[str, Any]:
    """Settings that every reader can walk and compare; an empty stand-in for others, which are reported."""
    mistake = _mistake(settings, NESTING_MAX)
    if mistake:
        report.error(path, mistake)
    return {} if mistake else settings


def _mistake(value: object, levels: int) -> str:
    if not levels:
        return f"settings may be nested {NESTING_MAX} levels deep"
    match value:
        case dict():
            mistakes = (_mistake(inner, levels - 1) for inner in value.values())
            return next(filter(None, mistakes), "")
        case list():
            return next(filter(None, (_mistake(inner, levels - 1) for inner in value)), "")
        case int() if value not in _WHOLE_NUMBERS:
            return "a whole number in it does not fit into 64 bits"
    return ""
