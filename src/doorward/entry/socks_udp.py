"""UDP ASSOCIATE (RFC 1928 section 7): the client's side of a UDP mapping, and its life beside a TCP connection.

The socket toward the client has the address that the client's TCP connection came in on. Only datagrams from the
client's own address count, and of its ports only one: the one it announced, else the one it sends from first.
Fragments are dropped, as the RFC lets a relay do. Nothing is answered that the client has not asked for.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Final

from doorward.api.errors import DoorwardError, PeerReset, Side
from doorward.api.ip_filter import IpFilter
from doorward.engine.outcome import End
from doorward.engine.target import target_of
from doorward.engine.udp.client_side import ClientEnd
from doorward.engine.udp.destination import State
from doorward.engine.udp.opening import open_mapping
from doorward.policy.address import BadHost
from doorward.wire.errors import ProtocolError
from doorward.wire.socks import read_datagram, write_datagram

if TYPE_CHECKING:
    from doorward.engine.connection import Connection
    from doorward.engine.origin import Origin
    from doorward.engine.session import Session
    from doorward.engine.udp.destination import Destination, FarEnd
    from doorward.engine.udp.mapping import Mapping
    from doorward.entry.client import Client
    from doorward.net.datagrams import SocketAddress
    from doorward.net.leg import Leg
    from doorward.wire.socks import Request

# What a client may say on the TCP connection meanwhile; the RFC has nothing for it to say.
IGNORED_BYTES_MAX: Final = 64 * 1024
TOO_TALKATIVE: Final = "udp_association_bytes"
_IPV4: Final = 1
_IPV6: Final = 4


class SocksSide:
    """A mapping's client that speaks SOCKS datagrams. See `ClientSide`.

    A header as a client writes it leads to its destination at once: whoever has sent to it before is not parsed again.
    """

    __slots__ = ("_client", "_host", "_known", "_known_max", "_leg", "_mapping", "_port", "_way", "fragments",
                 "intruders", "malformed", "socket")  # fmt: skip

    def __init__(self, mapping: Mapping, leg: Leg, client_address: str, announced_port: int) -> None:
        """Raises LinkError kinds, OutOfResources when there is no socket."""
        self._mapping = mapping
        self._leg = leg
        self._host = client_address
        self._port = announced_port
        self._client: SocketAddress | None = None
        self._known: dict[bytes, Destination] = {}
        self._known_max = mapping.memory.destinations_max
        self.fragments = 0
        self.intruders = 0
        self.malformed = 0
        self.socket = mapping.table.open(leg.local_name[0], 0, self.from_client)
        openings = mapping.connection.engine.arrivals.openings
        self._way = (
            None if openings is None else openings.way("udp", self.socket.name, IpFilter(client_address))
        )

    def from_client(self, datagram: memoryview, address: SocketAddress) -> None:
        """A datagram that has arrived at the socket toward the client."""
        if address != self._client and not self._is_client(address):
            self.intruders += 1
            return
        try:
            kind = datagram[3]
            size = 10 if kind == _IPV4 else 22 if kind == _IPV6 else 7 + datagram[4]
        except IndexError:
            self.malformed += 1
            return
        header = datagram[:size].tobytes()
        destination = self._known.get(header)
        if destination is None or destination.state is State.FORGOTTEN:
            destination = self._look_up(header)
            if destination is None:
                return
        self._mapping.outward(destination, datagram[size:])

    def deliver(self, payload: memoryview | bytes, source: FarEnd) -> bool:
        """With the header that says who has sent it."""
        if self._client is None:
            return False
        return self.socket.send((source.header or _answer_header(source)) + payload, self._client)

    def end_for(self, destination: Destination) -> ClientEnd | None:
        """None before its client has written a header for it that is still known."""
        header = next((h for h, known in self._known.items() if known is destination), None)
        if header is None or self._client is None:
            return None
        answer_header = destination.header or _answer_header(destination)
        return ClientEnd(self.socket, self._client, header, answer_header)

    def forget(self, destination: Destination) -> None:
        """A known header that leads to it is looked up anew; the table has a cap, and needs no sweeping."""

    def close(self) -> None:
        """The mapping has ended, and with it the TCP connection that stood for it."""
        self._mapping.table.release(self.socket)
        if self._way is not None:
            self._way.close()
        self._mapping.dropped += self.socket.unheard
        self._known.clear()
        end = self._mapping.connection.end
        self._leg.close_now(abortive=end is not None and end.how == "killed")

    def notes(self) -> list[tuple[str, int]]:
        """What never became a datagram of the mapping's."""
        unsent = self.socket.dropped + self.socket.failed
        return [
            ("not from the client", self.intruders),
            ("malformed", self.malformed),
            ("fragments", self.fragments),
            ("answers", unsent),
        ]

    def _is_client(self, address: SocketAddress) -> bool:
        """Whether this is the client; the first that fits is, from then on."""
        if self._client is not None or address[0] != self._host or self._port not in (0, address[1]):
            return False
        if self._mapping.table.is_ours(address):
            return False
        self._client = address
        return True

    def _look_up(self, header: bytes) -> Destination | None:
        """What a header leads to; None if that is nowhere, which is then counted."""
        try:
            asked = read_datagram(header)
            if asked.fragment:
                self.fragments += 1
                return None
            host = asked.host if asked.host is not None else asked.address
            assert host is not None
            target = target_of(host, asked.port)
        except (ProtocolError, BadHost):
            self.malformed += 1
            return None
        destination = self._mapping.find(target)
        if destination is not None:
            if len(self._known) >= self._known_max:
                self._known.clear()
            self._known[header] = destination
        return destination


def _answer_header(source: FarEnd) -> bytes:
    """What stands before an answer of this one's."""
    source.header = write_datagram(ipaddress.ip_address(source.where[0]), source.where[1], b"")
    return source.header


async def associate(
    client: Client, session: Session, origin: Origin, request: Request
) -> tuple[Connection, SocksSide | None]:
    """An association for this client. Look at the connection's `refusal`: then there is none, and it has ended."""
    sides: list[SocksSide] = []

    def make(mapping: Mapping) -> SocksSide:
        sides.append(SocksSide(mapping, client.leg, client.address, request.port))
        return sides[0]

    connection, mapping = await open_mapping(client.engine, session, origin, make)
    return connection, sides[0] if mapping is not None else None


async def live(client: Client, connection: Connection) -> None:
    """Until the TCP connection ends, or the mapping does: the other one then ends at once. Nothing is raised."""
    engine, leg = client.engine, client.leg
    left = IGNORED_BYTES_MAX
    try:
        leg.keep_alive()
        while data := await leg.recv():
            left -= len(data)
            if left < 0:
                engine.ended(connection, End(TOO_TALKATIVE, Side.OURS))
                return
        engine.ended(connection, End("closed", Side.INTERNAL))
    except PeerReset as error:
        engine.ended(connection, End(error.reason, Side.INTERNAL))
    except DoorwardError:
        engine.ended(connection, End("closed", Side.OURS))  # the mapping has ended, and closed the leg
    except BaseException:
        engine.kill(connection, "shutdown")
        raise
