"""Machines that route through this one, as clients: each address is one client, with a session of its own.

A source address is what a packet says; the kernel's packet filter drops those that come by a wrong device, and what is
not from the networks that we serve is refused here once more. Names that a client has asked for are kept for it while
its session comes and goes, since it keeps the addresses for as long as it runs; and for its machine, which asks by IPv4
and connects by IPv6.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final

from doorward.api.filters import ClientKind
from doorward.capture.neighbours import machine_of
from doorward.engine.names.asked import NamesAsked
from doorward.engine.origin import Origin
from doorward.engine.publishing.visitors import Told
from doorward.engine.recording import record_of_stranger
from doorward.policy.networks import AddressSet

if TYPE_CHECKING:
    from doorward.api.contracts import TransportName
    from doorward.config.model import Transparent
    from doorward.engine.engine import Engine
    from doorward.engine.session import Session
    from doorward.net.datagrams import SocketAddress
    from doorward.policy.model import IPAddress

ENTRY: Final = "transparent"
# A client outside of the networks that are served.
FOREIGN_SOURCE: Final = "transparent_source"
# What the firewall itself has sent comes back to it.
LOOP: Final = "transparent_loop"
# Somebody has spoken to the port itself, to which only the packet filter leads.
OWN_PORT: Final = "transparent_port"
# Machines whose names are kept; some 300 bytes each name.
NAMED_MACHINES_MAX: Final = 4096
# Addresses whose machine is known. One may get another machine, and the kernel may hear of a machine in a moment.
ADDRESSES_MAX: Final = 65_536
KNOWN_S: Final = 60.0
UNKNOWN_S: Final = 5.0


class RoutedClients:
    """See the module, and `CaughtClients`."""

    def __init__(self, engine: Engine, settings: Transparent, has_room: Callable[[], bool]) -> None:
        self.engine = engine
        self.has_room = has_room
        self._told = Told(engine.poller.loop.time)
        self._asked: OrderedDict[str, NamesAsked] = OrderedDict()
        self._machines: OrderedDict[str, tuple[str, float]] = OrderedDict()
        self.configure(settings)

    def configure(self, settings: Transparent) -> None:
        """Go by these from now on."""
        self._port = settings.port
        self._answers_names = settings.dns == "answer"
        self._interfaces = settings.interfaces
        self._machines.clear()
        self._networks = AddressSet(settings.networks)
        self._kept = AddressSet(settings.keep_source) if settings.keep_source else None

    def session_of(self, client: SocketAddress) -> Session:
        """See `CaughtClients`."""
        session = self.engine.sessions.get(client[0], None)
        if self._answers_names and session.asked is None:
            session.asked = self._asked.get(self._machine_of(client[0]))
        return session

    def asking(self, client: SocketAddress) -> Session:
        """See `CaughtClients`. What is remembered is its machine's, whichever of its addresses asks."""
        session = self.session_of(client)
        machine = self._machine_of(client[0])
        if session.asked is None:
            session.asked = self._asked[machine] = NamesAsked(self.engine.poller.loop.time())
            if len(self._asked) > NAMED_MACHINES_MAX:
                self._asked.popitem(last=False)
        if machine in self._asked:
            self._asked.move_to_end(machine)
        return session

    def origin_of(self, client: SocketAddress) -> Origin:
        """See `CaughtClients`."""
        return Origin(ENTRY, ClientKind.CAPTURED, client[0], client[1])

    def are_to_be_served(
        self, client: SocketAddress, address: IPAddress, port: int, transport: TransportName
    ) -> bool:
        """See `CaughtClients`. Nobody else's packets are, nor what would come back to us."""
        source, is_own = ipaddress.ip_address(client[0]), self.engine.own_addresses.is_own
        if port == self._port and is_own(address):
            self._refuse(client, address, port, transport, OWN_PORT)
        elif is_own(source) or (transport == "udp" and self.engine.udp.is_ours(client)):
            self._refuse(client, address, port, transport, LOOP)
        elif source not in self._networks:
            self._refuse(client, address, port, transport, FOREIGN_SOURCE)
        else:
            return True
        return False

    def borrowed(self, client: SocketAddress) -> Callable[[IPAddress], str | None] | None:
        """See `CaughtClients`."""
        kept = self._kept
        return None if kept is None else lambda address: client[0] if address in kept else None

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """See `CaughtClients`."""
        self.engine.supervisor.spawn(work, name=ENTRY)

    def _machine_of(self, address: str) -> str:
        """What stands for the machine with this address; the address itself, if that is all that is known."""
        now_s = self.engine.poller.loop.time()
        machine, until_s = self._machines.get(address, (address, now_s))
        if now_s < until_s:
            return machine
        found = machine_of(address, self._interfaces)
        machine = found or address
        self._machines[address] = machine, now_s + (UNKNOWN_S if found is None else KNOWN_S)
        self._machines.move_to_end(address)
        if len(self._machines) > ADDRESSES_MAX:
            self._machines.popitem(last=False)
        return machine

    def _refuse(
        self, client: SocketAddress, address: IPAddress, port: int, transport: TransportName, reason: str
    ) -> None:
        """Put it on record: the first ones of a minute each, the rest by their number."""
        before = self._told.ask()
        if before is None:
            return
        missed = f"{before} more were refused within the minute before" if before else ""
        record = record_of_stranger(
            self.origin_of(client), "deny", reason, host=str(address), port=port, detail=missed
        )
        record.transport = transport
        self.engine.recorder.append(record)
