"""Ports and protocols: what `tcp/8000-8999` and `https` stand for.

The built-in names are conveniences that a policy may define anew; they hold the ports on which these protocols
are usually served (IANA's registry of service names, https://www.iana.org/assignments/service-names-port-numbers,
and for the rest the servers' own manuals). A name says nothing about what really travels on a port.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final, cast

from doorward.config.document import ProtocolTable
from doorward.config.lines import KeyPath
from doorward.config.problems import Report
from doorward.policy.model import PORT_MAX, TRANSPORTS, PortRange, Protocols, Transport

ANY: Final = "any"
EVERY_PORT: Final = tuple(PortRange(transport, 0, PORT_MAX) for transport in TRANSPORTS)
RESERVED: Final = (ANY, *TRANSPORTS)
"""Words that stand for every port, of every transport or of one."""

_PORTS: Final = re.compile(r"((?:tcp|udp)(?:-in)?)(?:/([0-9]{1,5})(?:-([0-9]{1,5}))?)?")

_BUILT_IN: Final = {
    "http": "tcp/80",
    "https": "tcp/443",
    "http-alt": "tcp/8080",
    "quic": "udp/443",
    "ssh": "tcp/22",
    "git": "tcp/9418",
    "ftp": "tcp/21",
    "ftps": "tcp/990",
    "tftp": "udp/69",
    "rsync": "tcp/873",
    "smb": "tcp/445",
    "nfs": "tcp/2049",
    "telnet": "tcp/23",
    "rdp": "tcp/3389 udp/3389",
    "vnc": "tcp/5900",
    "smtp": "tcp/25",
    "submission": "tcp/587",
    "submissions": "tcp/465",
    "imap": "tcp/143",
    "imaps": "tcp/993",
    "pop3": "tcp/110",
    "pop3s": "tcp/995",
    "dns": "tcp/53 udp/53",
    "dns-tls": "tcp/853",
    "ntp": "udp/123",
    "syslog": "udp/514",
    "snmp": "udp/161",
    "ldap": "tcp/389",
    "ldaps": "tcp/636",
    "kerberos": "tcp/88 udp/88",
    "irc": "tcp/6667",
    "ircs": "tcp/6697",
    "xmpp": "tcp/5222",
    "sip": "tcp/5060 udp/5060",
    "mqtt": "tcp/1883",
    "mqtts": "tcp/8883",
    "amqp": "tcp/5672",
    "amqps": "tcp/5671",
    "nats": "tcp/4222",
    "kafka": "tcp/9092",
    "postgres": "tcp/5432",
    "mysql": "tcp/3306",
    "mssql": "tcp/1433",
    "oracle": "tcp/1521",
    "mongodb": "tcp/27017",
    "redis": "tcp/6379",
    "memcached": "tcp/11211",
    "elasticsearch": "tcp/9200",
}


def parse_ports(text: str) -> PortRange:
    """What `tcp/443`, `udp/53`, `tcp/8000-8999` or `tcp-in/5000-5100` stands for; `tcp-in` alone is every port.

    Every port includes 0, with which a client asks the firewall to choose one to listen on. Raises ValueError
    with a helpful sentence.
    """
    found = _PORTS.fullmatch(text)
    if not found:
        raise ValueError("ports are written tcp/443, udp/53, tcp/8000-8999 or tcp-in/5000-5100")
    transport = cast(Transport, found[1])
    if found[2] is None:
        return PortRange(transport, 0, PORT_MAX)
    first = int(found[2])
    last = int(found[3] or first)
    if not 1 <= first <= PORT_MAX or not 1 <= last <= PORT_MAX:
        raise ValueError(f"a port is a number from 1 to {PORT_MAX}")
    if last < first:
        raise ValueError(f"the range ends before it begins; did you mean {transport}/{last}-{first}?")
    return PortRange(transport, first, last)


BUILT_IN: Final[Mapping[str, tuple[PortRange, ...]]] = {
    name: tuple(map(parse_ports, ports.split())) for name, ports in _BUILT_IN.items()
}


def read_protocols(tables: Mapping[str, ProtocolTable], report: Report) -> Protocols:
    """The policy's own protocols, then the built-in ones that it did not define anew."""
    ports: dict[str, tuple[PortRange, ...]] = {}
    for name, table in tables.items():
        path = ("protocols", name)
        if name in RESERVED:
            report.error(path, f'"{name}" stands for every port and cannot be defined')
        ranges = (
            _parsed(text, (*path, "ports", index), report) for index, text in enumerate(table.ports) if text
        )
        ports[name] = tuple(found for found in ranges if found)
    return Protocols(ports | {name: ranges for name, ranges in BUILT_IN.items() if name not in ports})


def read_ports(
    entries: Sequence[str], path: KeyPath, protocols: Protocols, report: Report
) -> tuple[PortRange, ...] | None:
    """The ports that a list of protocol names and ports stands for; None for `any`, which stands alone.

    What None reaches is for the reader to say: a rule that allows does not open inbound ports with it.
    """
    found: list[PortRange] = []
    for index, entry in enumerate(entries):
        place = (*path, index)
        if entry == ANY:
            if len(entries) > 1:
                report.error(place, '"any" is every port already and stands alone')
        elif "/" in entry or entry in RESERVED:
            ports = _parsed(entry, place, report)
            found += [ports] if ports else []
        elif entry in protocols.ports:
            found += protocols.ports[entry]
        elif entry.isascii() and entry.isdigit():
            report.error(place, f'"{entry}": say which transport, as in "tcp/{entry}"')
        elif entry:
            report.unknown(place, "protocol", entry, [*protocols.ports, *RESERVED])
    return None if ANY in entries else tuple(dict.fromkeys(found))


def _parsed(text: str, path: KeyPath, report: Report) -> PortRange | None:
    try:
        return parse_ports(text)
    except ValueError as mistake:
        report.error(path, f'"{text}": {mistake}')
        return None
