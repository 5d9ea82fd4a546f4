"""Application filters: each must be a file that exists, or one that is installed.

An installed filter is an entry point of the group `doorward.filters` (Python packaging's "entry points
specification"). Nothing is imported here: that a filter's code is sound is found out when it is loaded.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path
from typing import Final

from msgspec import UNSET

from doorward.config.document import Document, FilterTable
from doorward.config.model import FilterSetting
from doorward.config.ports import ANY, EVERY_PORT, read_ports
from doorward.config.problems import Report
from doorward.config.source import kind_of
from doorward.policy.model import PortRange, Protocols

ENTRY_POINT_GROUP: Final = "doorward.filters"


def read_filters(
    document: Document, directory: Path, protocols: Protocols, report: Report
) -> tuple[FilterSetting, ...]:
    """The filters in their order; `directory` is where relative files are looked for."""
    found: list[FilterSetting] = []
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
                settings=table.settings,
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


def _use(use: str, index: int, directory: Path, report: Report) -> str:
    path = ("filter", index, "use")
    if use.endswith(".py") or "/" in use:
        file = directory / use
        if kind_of(file) != "file":
            report.error(path, f'there is no file "{file}"')
        return str(file)
    installed = entry_points(group=ENTRY_POINT_GROUP).names
    if use and use not in installed:
        report.unknown(path, "filter", use, sorted(installed))
    return use
