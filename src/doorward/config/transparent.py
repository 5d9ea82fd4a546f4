"""`[transparent]`: which machines' traffic is taken on its way through this one, and how."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from msgspec import UNSET

from doorward.config.model import ListenAddress, Published, Transparent

if TYPE_CHECKING:
    from pathlib import Path

    from doorward.config.document import Document
    from doorward.config.problems import Report
    from doorward.config.rules import RuleReader
    from doorward.config.transparent_tables import TransparentTable
    from doorward.policy.model import IPNetwork

_PATH: Final = "transparent"
# What the kernel takes for a device's name (dev_valid_name), less what would have to be escaped somewhere.
_INTERFACE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,14}", re.ASCII)


def read_transparent(
    document: Document,
    directory: Path,
    reader: RuleReader,
    listen: Sequence[ListenAddress],
    published: Sequence[Published],
    report: Report,
) -> Transparent | None:
    """What is taken, or None; where the table has mistakes they are reported, and it must not be used."""
    table = document.transparent
    if table is UNSET:
        return None
    _check_workers(document, report)
    _check_port(table, listen, published, report)
    return Transparent(
        interfaces=_interfaces(table, report),
        networks=reader.networks(table.networks, (_PATH, "networks")),
        port=table.port,
        method=table.method,
        udp=table.udp,
        dns=table.dns,
        keep_source=_kept(table, reader, report),
        packet_filter=directory / table.packet_filter if table.packet_filter else None,
        kernel=table.kernel,
        line=report.line((_PATH,)),
    )


def _interfaces(table: TransparentTable, report: Report) -> tuple[str, ...]:
    for place, name in enumerate(table.interfaces):
        path = (_PATH, "interfaces", place)
        if name and not _INTERFACE.fullmatch(name):
            report.error(
                path, f'"{name}" is no name of a device; write it as `ip link` shows it, without "@…"'
            )
        elif name == "lo":
            report.error(path, '"lo" is this machine itself; nobody routes through it')
    return tuple(dict.fromkeys(table.interfaces))


def _kept(table: TransparentTable, reader: RuleReader, report: Report) -> tuple[IPNetwork, ...]:
    if table.keep_source is UNSET:
        return ()
    path = (_PATH, "keep_source")
    for place, entry in enumerate(table.keep_source):
        if entry.startswith("domain:"):
            report.error((*path, place), f'"{entry}": these destinations are known by address, never by name')
    return reader.networks([entry for entry in table.keep_source if not entry.startswith("domain:")], path)


def _check_workers(document: Document, report: Report) -> None:
    """A client's names and datagrams must meet in one process, and the kernel spreads caught datagrams by port."""
    if document.listen.workers != 1:
        report.error(
            ("listen", "workers"), "what is taken transparently is served by one process; write workers = 1"
        )


def _check_port(
    table: TransparentTable,
    listen: Sequence[ListenAddress],
    published: Sequence[Published],
    report: Report,
) -> None:
    """Nobody else listens there: ours is bound to every address."""
    if any(own.port == table.port for own in listen):
        report.error(
            (_PATH, "port"), f"{table.port}: clients of the proxy are waited for here (listen.proxy)"
        )
    for server in published:
        taken = {here.transport for here in server.listen if here.port == table.port}
        if "tcp" in taken or ("udp" in taken and table.udp):
            report.error(
                (_PATH, "port"), f'{table.port}: the published server "{server.name}" listens here already'
            )
