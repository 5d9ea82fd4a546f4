"""The sockets that filters hold: what a data filter pumps between, and what it may make for itself.

A `Socket` is one leg and nothing more: a data filter cannot tell a wire from TLS, an upstream or its neighbour in
the chain. A `NetworkSocket` is a leg that its owner may also bind, connect, listen on and accept from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    from doorward.api.ip_filter import IpFilter

# Address as text (never a name) and port.
SocketName: TypeAlias = tuple[str, int]


class Socket(Protocol):
    """One leg as a data filter sees it: a wire, or the neighbouring filter; it cannot know which."""

    async def recv(self, bytes_max: int | None = None) -> bytes:
        """The next bytes, at least one; `b""` at end of stream, and again each time after.

        Without `bytes_max` the chunk grows from 16 to 256 KiB with the flow. Raises PeerReset if the peer reset
        the connection, Terminating after close. A cancelled call has consumed nothing. On a UDP leg: the next
        datagram's payload, `b""` for an empty one.
        """
        ...

    async def send(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of it; waits while the other side cannot take more.

        Raises PeerReset if the peer is gone, Terminating after shutdown or close. After cancellation an unknown
        part was sent: only close is left. On a UDP leg: one datagram to its one peer; NotConnected without one.
        """
        ...

    async def recv_from(self, bytes_max: int | None = None) -> tuple[bytes, SocketName]:
        """The next datagram and its far end: on the internal side where the client sends it, on the external side
        who has sent it. A datagram longer than `bytes_max` is cut. Raises NotSupported on a stream.
        """
        ...

    async def send_to(self, data: bytes | bytearray | memoryview, address: SocketName) -> None:
        """Send one datagram: on the external side to `address`, on the internal side as if `address` had sent it.

        Raises NotSupported on a stream, BadArgument for more than 65,507 bytes.
        """
        ...

    async def shutdown(self, *, abortive: bool = False) -> None:
        """Say that no more will be sent (FIN), or abort (RST). The other direction goes on after a FIN."""
        ...

    async def close(self, *, abortive: bool = False) -> None:
        """End both directions. Idempotent."""
        ...


class NetworkSocket(Socket, Protocol):
    """A socket of a filter's own, made by `Session.create_network_socket` or `Firewall.create_network_socket`.

    It is the session's (policy applies, and what it does is logged as that user) or the system's (no policy,
    audited). It ends with the filter that made it. Upstream firewalls are passed through without notice.
    """

    async def connect(self, host: str, port: int) -> None:
        """Connect to a name or an address. Raises AccessDenied if policy or a filter refuses, LinkError kinds,
        NotSupported for a socket that listens, AlreadyExists for one that is connected.
        """
        ...

    async def bind(self, address: str, port: int) -> None:
        """Take a local address; `""` and 0 leave the choice to the firewall. Raises AddressInUse, AccessDenied."""
        ...

    async def listen(self, backlog: int = 128) -> None:
        """Let peers arrive, as many as `ip_filter` admits: without one, nobody. Raises NotSupported if not bound."""
        ...

    async def accept(self) -> NetworkSocket:
        """The next peer that has arrived. Raises NotSupported if it does not listen, Terminating after close."""
        ...

    @property
    def socket_name(self) -> SocketName:
        """Our own end. Raises NotConnected while there is none."""
        ...

    @property
    def peer_name(self) -> SocketName:
        """The far end. Raises NotConnected while there is none."""
        ...

    def get_option(self, level: int, option: int) -> int:
        """An integer socket option, as `socket.getsockopt`. Raises NotSupported for what is not a plain option."""
        ...

    def set_option(self, level: int, option: int, value: int) -> None:
        """Set one of the options a filter may set: keep-alive, no-delay, buffer sizes, traffic class, hop limit.

        Before there is a socket it is kept for the one to come. Raises NotSupported for any other.
        """
        ...

    @property
    def ip_filter(self) -> IpFilter | None:
        """A copy of the peers admitted; None if none was set."""
        ...

    def set_ip_filter(self, ip_filter: IpFilter | None) -> None:
        """Who may be the peer from now on. A listening socket without a filter admits nobody."""
        ...


class TLSSocket(Socket, Protocol):
    """TLS over a leg that exists already; see `Firewall.create_ssl_network_socket`."""

    @property
    def version(self) -> str:
        """`TLSv1.3` or `TLSv1.2`."""
        ...

    @property
    def alpn(self) -> str | None:
        """The application protocol that both sides agreed on."""
        ...

    @property
    def server_name(self) -> str | None:
        """The name that the client asked for (SNI)."""
        ...

    @property
    def peer_certificate(self) -> bytes | None:
        """The peer's certificate (DER), None if it sent none."""
        ...
