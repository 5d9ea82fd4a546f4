"""A local address and port, taken before it is known what for: to connect from, or to listen on.

A port that was asked for by number may be shared with others that connect from it, as FTP does with port 20, but
never with one that listens; one that the kernel chose is ours alone.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
from typing import TYPE_CHECKING, Final

from doorward.api.errors import AddressInUse, BadArgument, DoorwardError, Side, Unreachable
from doorward.net.seam import translate
from doorward.net.transparent import Borrowed, allow_borrowing

if TYPE_CHECKING:
    from doorward.api.contracts import TransportName
    from doorward.api.sockets import SocketName

ANY: Final = ""
_WILDCARDS: Final = {socket.AF_INET: "0.0.0.0", socket.AF_INET6: "::"}
_NOT_TO_BE_HAD: Final = frozenset({errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES})


class Reservation:
    """One local end. Owns its socket until `take` or `close`."""

    def __init__(
        self,
        address: str,
        port: int,
        transport: TransportName = "tcp",
        *,
        sock: socket.socket | None = None,
    ) -> None:
        """`""` is every address of both families, where there are two; port 0 leaves the choice to the kernel.

        `sock` is bound there already, and is the reservation's from now on.
        Raises BadArgument, AddressInUse for what is taken or none of this machine's, OutOfResources.
        """
        if not 0 <= port <= 65_535:
            raise BadArgument(f"{port} is no port")
        self._socket: socket.socket | None = sock or _bound(address, port, transport)
        self.name: SocketName = self._socket.getsockname()[:2]

    def take(self) -> socket.socket:
        """The bound, non-blocking socket; it is the caller's now."""
        taken, self._socket = self._socket, None
        assert taken is not None, "it was given away before"
        return taken

    def close(self) -> None:
        """Give it back. Idempotent."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def bind_as_source(sock: socket.socket, source: SocketName) -> None:
    """Have a TCP socket connect from this end, which a reservation may hold, or which is not ours (`Borrowed`).

    Raises AddressInUse, Unreachable, LinkError.
    """
    address = ipaddress.ip_address(source[0])
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    if family != sock.family and not address.is_unspecified:
        raise Unreachable(f"not from {address}: the destination is of another kind", side=Side.OURS)
    here = _WILDCARDS[sock.family] if address.is_unspecified else str(address)
    try:
        if isinstance(source, Borrowed):
            allow_borrowing(sock)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((here, source[1]))
    except OSError as error:
        raise _refused(error, source) from None


def _bound(address: str, port: int, transport: TransportName) -> socket.socket:
    if address != ANY:
        try:
            meant = ipaddress.ip_address(address)
        except ValueError:
            raise BadArgument(f"{address!r} is no address") from None
        family = socket.AF_INET if meant.version == 4 else socket.AF_INET6
        return _bound_to(family, str(meant), port, transport, only_one_family=True)
    try:
        return _bound_to(socket.AF_INET6, "::", port, transport, only_one_family=False)
    except AddressInUse:
        raise
    except DoorwardError:  # a machine without IPv6
        here = _WILDCARDS[socket.AF_INET]
        return _bound_to(socket.AF_INET, here, port, transport, only_one_family=True)


def _bound_to(
    family: socket.AddressFamily, address: str, port: int, transport: TransportName, *, only_one_family: bool
) -> socket.socket:
    kind = socket.SOCK_STREAM if transport == "tcp" else socket.SOCK_DGRAM
    try:
        sock = socket.socket(family, kind | socket.SOCK_NONBLOCK)
    except OSError as error:
        raise translate(error.errno, Side.OURS) from None
    try:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(only_one_family))
        if port and transport == "tcp":  # datagrams would go to whoever has bound it last
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address, port))
        if transport == "tcp":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # for those that connect from it
    except OSError as error:
        sock.close()
        raise _refused(error, (address, port)) from None
    return sock


def _refused(error: OSError, name: SocketName) -> DoorwardError:
    if error.errno in _NOT_TO_BE_HAD:
        return AddressInUse(f"{name[0]} port {name[1]}: {error.strerror}", side=Side.OURS)
    return translate(error.errno, Side.OURS)
