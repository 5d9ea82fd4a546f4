"""`[[publish]]`: servers inside that others may reach. Who may come is read as the `from` of a rule is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Final, Literal

from msgspec import UNSET

from doorward.config.document import Document
from doorward.config.lines import KeyPath
from doorward.config.model import HealthChecks, ListenAddress, Published, PublishedAddress
from doorward.config.problems import Report
from doorward.config.publish_tables import PublishTable
from doorward.config.rules import RuleReader
from doorward.config.settings import parse_listen
from doorward.policy.address import canonical
from doorward.policy.model import PORT_MAX, IPAddress, IPNetwork, Protocols

Server = tuple[IPAddress, int]

_LISTEN: Final = re.compile(r"(tcp|udp)/(.*)", re.DOTALL)
_SERVER: Final = re.compile(r"(\[[^\]]*\]|[^:\[\]]*):([0-9]{1,5})", re.ASCII)
_HOW_TO_LISTEN: Final = 'write "tcp/0.0.0.0:443", "tcp/[::]:443" or "udp/192.0.2.1:53"'
_HOW_TO_LEAD: Final = 'a server is written "10.0.0.5:8443" or "[2001:db8::5]:8443"'


def parse_published(text: str) -> PublishedAddress:
    """`tcp/0.0.0.0:443` or `udp/[::]:53`; port 0 lets the kernel choose. Raises ValueError with a sentence."""
    found = _LISTEN.fullmatch(text)
    if found is None:
        raise ValueError(_HOW_TO_LISTEN)
    where = parse_listen(found[2])
    transport: Literal["tcp", "udp"] = "tcp" if found[1] == "tcp" else "udp"
    return PublishedAddress(transport, ip_address(where.host), where.port)


def parse_server(text: str) -> Server:
    """`10.0.0.5:8443` or `[2001:db8::5]:8443`. Raises ValueError with a sentence."""
    found = _SERVER.fullmatch(text)
    if found is None:
        raise ValueError(_HOW_TO_LEAD)
    host, port = found[1], int(found[2])
    if not 1 <= port <= PORT_MAX:
        raise ValueError(f"a port is a number from 1 to {PORT_MAX}")
    try:
        address = ip_address(host.strip("[]"))
    except ValueError:
        raise ValueError(f"{_HOW_TO_LEAD}; names are not looked up here") from None
    if "%" in host or (address.version == 6) != host.startswith("["):
        raise ValueError(_HOW_TO_LEAD)
    address = canonical(address)
    if address.is_unspecified or address.is_multicast:
        raise ValueError("no server has this address")
    return address, port


def read_published(
    document: Document,
    reader: RuleReader,
    listen: Sequence[ListenAddress],
    protocols: Protocols,
    report: Report,
) -> tuple[Published, ...]:
    """Every published server in its order; where one has mistakes they are reported, and none must be used."""
    found = [
        _Reader(index, table, reader, protocols, report).read()
        for index, table in enumerate(document.publish)
    ]
    _check_names(document, report)
    _check_places(found, listen, report)
    return tuple(found)


class _Reader:
    """Reads one table."""

    def __init__(
        self, index: int, table: PublishTable, reader: RuleReader, protocols: Protocols, report: Report
    ) -> None:
        self._index = index
        self._table = table
        self._rules = reader
        self._protocols = protocols
        self._report = report
        self._path: KeyPath = ("publish", index)

    def read(self) -> Published:
        table, rule = self._table, self._rules.read_published(self._index, self._table)
        listen, to = self._listen(), self._to()
        self._check_mode(listen, to)
        version, headers_from = self._headers(listen)
        return Published(
            name=table.name,
            listen=tuple(listen.values()),
            to=tuple(dict.fromkeys(to.values())),
            sources=rule.sources or (),
            windows=rule.windows,
            protocol=self._protocol(),
            keeps_source=table.mode == "keep-source",
            headers_from=headers_from,
            header_version=version,
            balance=table.balance,
            health=self._health(listen),
            line=rule.line,
        )

    def _listen(self) -> dict[int, PublishedAddress]:
        """By their place in the list, without those that are wrong."""
        found: dict[int, PublishedAddress] = {}
        for place, entry in enumerate(self._table.listen):
            try:
                if entry:
                    found[place] = parse_published(entry)
            except ValueError as mistake:
                self._report.error((*self._path, "listen", place), f'"{entry}": {mistake}')
        return found

    def _to(self) -> dict[int, Server]:
        found: dict[int, Server] = {}
        for place, entry in enumerate(self._table.to):
            path = (*self._path, "to", place)
            try:
                server = parse_server(entry) if entry else None
            except ValueError as mistake:
                self._report.error(path, f'"{entry}": {mistake}')
                continue
            if server in found.values():
                self._report.error(path, f'"{entry}" is listed twice')
            elif server is not None:
                found[place] = server
        return found

    def _protocol(self) -> str | None:
        name = self._table.protocol
        if name is UNSET:
            return None
        if name and name not in self._protocols.ports:
            self._report.unknown((*self._path, "protocol"), "protocol", name, self._protocols.ports)
        return name

    def _check_mode(self, listen: dict[int, PublishedAddress], to: dict[int, Server]) -> None:
        """A client's address is of one family, and cannot be the source of a packet of the other one."""
        if self._table.mode != "keep-source":
            return
        families = {here.address.version for here in listen.values()}
        for place, (address, _) in to.items():
            others = families - {address.version}
            if others:
                clients = "IPv6" if 6 in others else "IPv4"
                self._report.error(
                    (*self._path, "to", place),
                    f'"keep-source" cannot lead {clients} clients to a server of the other family; '
                    "publish each family by itself",
                )

    def _headers(
        self, listen: dict[int, PublishedAddress]
    ) -> tuple[Literal[1, 2] | None, tuple[IPNetwork, ...]]:
        table, path = self._table.proxy_protocol, (*self._path, "proxy_protocol")
        if table is UNSET:
            return None, ()
        if table.read is UNSET and table.write is UNSET:
            self._report.error(path, 'it says nothing; give it "read", "write" or both')
        if any(here.transport == "udp" for here in listen.values()):
            self._report.error(
                path, "datagrams have no PROXY header here; publish TCP and UDP each by itself"
            )
        networks = () if table.read is UNSET else self._rules.networks(table.read, (*path, "read"))
        for network in networks:
            if not network.prefixlen:
                self._report.warning(
                    (*path, "read"), f"everybody in {network} may say to be anybody; name the proxies alone"
                )
        if table.write is UNSET:
            return None, networks
        return (1 if table.write == "v1" else 2), networks

    def _health(self, listen: dict[int, PublishedAddress]) -> HealthChecks | None:
        table = self._table.health
        if table is UNSET:
            return None
        port = None if table.port is UNSET else table.port
        if port is None and listen and all(here.transport == "udp" for here in listen.values()):
            self._report.error(
                (*self._path, "health"),
                'datagrams cannot be probed; name a TCP port of the servers with "port"',
            )
        return HealthChecks(table.interval_s, table.timeout_s, port)


def _check_names(document: Document, report: Report) -> None:
    """One name, one thing: records and settings of filters go by it."""
    known: dict[str, KeyPath] = {}
    for index, rule in enumerate(document.rule):
        known.setdefault(rule.name, ("rule", index))
    for index, table in enumerate(document.publish):
        path: KeyPath = ("publish", index)
        first = known.setdefault(table.name, path)
        if table.name and first != path:
            what = "rule" if first[0] == "rule" else "published server"
            report.error(
                (*path, "name"), f'the {what} on line {report.line(first)} is called "{table.name}" too'
            )


def _check_places(found: Sequence[Published], listen: Sequence[ListenAddress], report: Report) -> None:
    """Nobody listens where somebody else does, and nobody is led in a circle."""
    proxies = {PublishedAddress("tcp", ip_address(own.host), own.port) for own in listen if own.port}
    taken: dict[PublishedAddress, int] = {}
    for index, published in enumerate(found):
        for place, here in enumerate(published.listen):
            path = ("publish", index, "listen", place)
            if here in proxies:
                report.error(path, f'"{here}": clients of the proxy are waited for here (listen.proxy)')
            elif here in taken:
                line = report.line(("publish", taken[here]))
                report.error(path, f'"{here}": the published server on line {line} listens here already')
            else:
                taken[here] = index
    ours = [own for own in (*proxies, *taken) if own.port]
    for index, published in enumerate(found):
        transports = {here.transport for here in published.listen}
        for place, server in enumerate(published.to):
            if any(own.transport in transports and _is_here(server, own) for own in ours):
                report.error(("publish", index, "to", place), "this is where Doorward itself listens")


def _is_here(server: Server, own: PublishedAddress) -> bool:
    """As far as it can be seen: each connection would cause another."""
    address, port = server
    if port != own.port:
        return False
    return address == own.address or (
        address.is_loopback and own.address.is_unspecified and address.version == own.address.version
    )
