"""The ways to our ports as elements of the packet filter: what several ask for at one port adds up to disjoint ranges.

A range that the kernel does not take stays closed, and the log says so. Wildcard addresses stand for all of ours;
loopback is nobody's business but this machine's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

from msgspec.structs import astuple

from doorward.api.ip_filter import IpFilter
from doorward.packetfilter.model import Element

if TYPE_CHECKING:
    from doorward.api.contracts import TransportName
    from doorward.api.sockets import SocketName
    from doorward.packetfilter.upkeep import PacketFilter

RANGES_MAX: Final = 256
"""Of one port; the IP filter of a filter may have any number."""


class KernelOpenings:
    """Fulfils `net.Openings`."""

    def __init__(self, packet_filter: PacketFilter, say: Callable[[str], None]) -> None:
        """`say` tells the operator what stays closed."""
        self._filter = packet_filter
        self._say = say
        self._ports: dict[tuple[TransportName, SocketName], _Port] = {}
        self._opening: set[asyncio.Future[None]] = set()

    def way(self, transport: TransportName, name: SocketName, peers: IpFilter | None) -> KernelWay:
        """See `net.Openings`."""
        place = transport, (name[0], name[1])
        port = self._ports.get(place)
        if port is None:
            port = self._ports[place] = _Port(transport, *place[1])
        way = KernelWay(self, port)
        way.admit(peers)
        return way

    async def settled(self) -> None:
        """See `net.Openings`."""
        if self._opening:
            await asyncio.wait(tuple(self._opening))

    def look(self, port: _Port) -> None:
        """What is wanted at this port has changed."""
        wanted = port.wanted()
        if len(wanted) > RANGES_MAX:
            self._say(
                f"{len(wanted)} ranges of peers at one port, more than {RANGES_MAX}: the rest stays out"
            )
            wanted = set(sorted(wanted, key=astuple)[:RANGES_MAX])
        for element in port.open - wanted:
            self._filter.close(element)
        new, port.open = wanted - port.open, wanted
        for element in new:
            answer = self._filter.ask(element)
            self._opening.add(answer)
            answer.add_done_callback(partial(self._answered, port, element))
        if not port.ways:
            self._ports.pop((port.transport, (port.address, port.number)), None)

    def _answered(self, port: _Port, element: Element, answer: asyncio.Future[None]) -> None:
        self._opening.discard(answer)
        error = None if answer.cancelled() else answer.exception()
        if error is not None:
            port.open.discard(element)
            self._say(f"{element.transport} port {element.port} stays closed to {element.first}: {error}")


class KernelWay:
    """Fulfils `net.Way`."""

    def __init__(self, openings: KernelOpenings, port: _Port) -> None:
        """Nobody comes by it yet."""
        self._openings = openings
        self._port = port

    def admit(self, peers: IpFilter | None) -> None:
        """See `net.Way`."""
        self._port.ways[self] = IpFilter() if peers is None else peers.clone()
        self._openings.look(self._port)

    def close(self) -> None:
        """See `net.Way`."""
        if self._port.ways.pop(self, None) is not None:
            self._openings.look(self._port)


class _Port:
    """One port, who wants it open to whom, and what is open."""

    def __init__(self, transport: TransportName, address: str, number: int) -> None:
        self.transport = transport
        self.address = address
        self.number = number
        self.ways: dict[KernelWay, IpFilter] = {}
        self.open: set[Element] = set()

    def wanted(self) -> set[Element]:
        """The elements that let in all who may come."""
        here = ip_address(self.address)
        if here.is_loopback:
            return set()
        everybody = IpFilter()
        for peers in self.ways.values():
            everybody.include_filter(peers)
        found = set()
        for text in everybody.ranges:
            first, _, last = text.partition("-")
            if ip_address(first).version == here.version:
                address = None if here.is_unspecified else str(here)
                found.add(Element(self.transport, first, last or first, address, self.number))
        return found
