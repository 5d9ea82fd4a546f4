"""`[[route]]`: which connections go through which upstreams. Their words are read as those of rules are."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import UNSET

from doorward.config.document import Document
from doorward.config.model import Upstream
from doorward.config.problems import Report
from doorward.config.rules import RuleReader
from doorward.config.upstream_tables import RouteTable
from doorward.policy.routes import DIRECT, Route, Routes


def read_routes(
    document: Document, reader: RuleReader, upstreams: Mapping[str, Upstream], report: Report
) -> Routes:
    """The routes in their order; every mistake is reported, and then what is answered must not be used."""
    first: dict[str, int] = {}
    found: list[Route] = []
    for index, table in enumerate(document.route):
        other = first.setdefault(table.name, index)
        if table.name and other != index:
            line = report.line(("route", other))
            report.error(("route", index, "name"), f'the route on line {line} is called "{table.name}" too')
        _check_via(index, table, upstreams, report)
        found.append(Route(reader.read_route(index, table), tuple(table.via)))
    if not report.failed:
        _doubt_unused(found, upstreams, report)
        _doubt_users(document, report)
    return Routes(() if report.failed else found)


def _check_via(index: int, table: RouteTable, upstreams: Mapping[str, Upstream], report: Report) -> None:
    for place, name in enumerate(table.via):
        path = ("route", index, "via", place)
        if name in table.via[:place]:
            report.error(path, f'"{name}" is listed twice')
        elif name == DIRECT:
            if place < len(table.via) - 1:
                report.error(path, '"direct" stands last: what follows it would never be tried')
        elif name and name not in upstreams:
            report.unknown(path, "upstream", name, [*upstreams, DIRECT])


def _doubt_unused(routes: list[Route], upstreams: Mapping[str, Upstream], report: Report) -> None:
    used = {name for route in routes for name in route.via}
    used |= {upstream.through for upstream in upstreams.values() if upstream.through is not None}
    for name in upstreams:
        if name not in used:
            report.warning(("upstreams", name), "no route uses it")


def _doubt_users(document: Document, report: Report) -> None:
    """Clients are asked who they are on behalf of rules alone."""
    if any(table.users is not UNSET for table in document.rule):
        return
    for index, table in enumerate(document.route):
        if table.users is not UNSET:
            report.warning(
                ("route", index, "users"), "no rule names users, so nobody is asked and this never matches"
            )
