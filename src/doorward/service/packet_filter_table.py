"""What a policy means to a gateway's packet filter: what is captured, who is interested, and what is open by itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

from doorward.api.filters import ClientKind
from doorward.packetfilter.compiler import Interest, compile_table
from doorward.packetfilter.model import LOG_GROUP, Capture, Element, Ports, Table

if TYPE_CHECKING:
    from doorward.config.model import Configuration, Transparent
    from doorward.engine.association import FilterEntry

_EVERYBODY: Final = {
    4: ("0.0.0.0", "255.255.255.255"),
    6: ("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
}
_DNS: Final = 53


def capture_of(configuration: Configuration, settings: Transparent) -> Capture:
    """What is captured, and what the kernel may decide by itself: nothing past a limit that only the service keeps."""
    limits = configuration.limits
    kept_here = (
        limits.bytes_max_per_direction,
        limits.bytes_per_second,
        limits.connections_per_client_max,
        limits.connects_per_minute_per_client_max,
    )
    settles = settings.kernel
    return Capture(
        networks=tuple(map(str, settings.networks)),
        interfaces=settings.interfaces,
        tcp_port=settings.port,
        udp_port=settings.port,
        tcp_method=settings.method,
        keep_source=tuple(map(str, settings.keep_source)),
        log_group=LOG_GROUP,
        settles="denials" if settles == "everything" and any(kept_here) else settles,
        up=(Ports("tcp", _DNS, _DNS), Ports("udp", _DNS, _DNS)) if settings.dns == "answer" else (),
    )


def interests_of(entries: Iterable[FilterEntry]) -> list[Interest]:
    """Where filters want to hear of what machines behind the gateway are allowed."""
    return [
        Interest(entry.ports, entry.off)
        for entry in entries
        if ClientKind.CAPTURED in entry.interest.clients and entry.interest.scope.includes(False)
    ]


def table_of(configuration: Configuration, entries: Iterable[FilterEntry]) -> Table | None:
    """The table that this policy makes with these filters; None without `[transparent]`."""
    settings = configuration.transparent
    if settings is None:
        return None
    capture = capture_of(configuration, settings)
    return compile_table(configuration.policy, capture, configuration.routes, interests_of(entries))


def openings_of(configuration: Configuration, listening: Sequence[tuple[str, int]]) -> set[Element]:
    """What the policy itself listens for: the proxy, at the addresses that it was bound to, and published servers."""
    found = set()
    for host, port in listening:
        address = ip_address(host)
        if not address.is_loopback:
            where = None if address.is_unspecified else str(address)
            found.add(Element("tcp", *_EVERYBODY[address.version], where, port))
    for server in configuration.published:
        for here in server.listen:
            where = None if here.address.is_unspecified else str(here.address)
            for network in server.sources:
                if network.version == here.address.version and here.port:
                    ends = str(network.network_address), str(network.broadcast_address)
                    found.add(Element(here.transport, *ends, where, here.port))
    return found
