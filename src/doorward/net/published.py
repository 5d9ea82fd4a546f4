"""Addresses of ours at which servers are published: bound once, and lent to whoever serves there.

What is held here stays bound from one policy to the next, so that a change of who serves loses nobody who waits in the
kernel. Bound is not yet open: a TCP peer is taken, and a datagram read, by who has borrowed.
"""

from __future__ import annotations

import errno
import os
import socket
from typing import TYPE_CHECKING, Final

from doorward.api.errors import AddressInUse, DoorwardError, Side
from doorward.net.seam import translate

if TYPE_CHECKING:
    from doorward.api.contracts import TransportName
    from doorward.policy.model import IPAddress

# The kernel cuts this to net.core.somaxconn.
BACKLOG: Final = 4096
_NOT_TO_BE_HAD: Final = frozenset({errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES})


class Held:
    """One address, and its socket. `lend` gives out others of the same address; all of them are its holders'."""

    def __init__(
        self, transport: TransportName, address: IPAddress, port: int, *, sock: socket.socket | None = None
    ) -> None:
        """`sock` is bound there already, and belongs to us from now on. Raises AddressInUse, LinkError kinds."""
        self._socket = _bound(transport, str(address), port) if sock is None else sock
        self.name: tuple[str, int] = self._socket.getsockname()[:2]

    def lend(self) -> socket.socket:
        """The same end, as a socket of the caller's own. Raises OutOfResources."""
        try:
            lent = self._socket.dup()
        except OSError as error:
            raise translate(error.errno, Side.OURS) from None
        lent.setblocking(False)
        return lent

    def close(self) -> None:
        """Give it back, once nobody borrows it. Idempotent."""
        self._socket.close()


def unbound(transport: TransportName, host: str) -> socket.socket:
    """A socket for peers at this address, not bound yet. Raises LinkError and its kind."""
    kind = socket.SOCK_STREAM if transport == "tcp" else socket.SOCK_DGRAM
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        sock = socket.socket(family, kind | socket.SOCK_NONBLOCK)
    except OSError as error:
        raise translate(error.errno, Side.OURS) from None
    try:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if transport == "tcp":  # datagrams would go to whoever has bound it last
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    except OSError as error:
        sock.close()
        raise translate(error.errno, Side.OURS) from None
    return sock


def _bound(transport: TransportName, host: str, port: int) -> socket.socket:
    sock = unbound(transport, host)
    try:
        sock.bind((host, port))
        if transport == "tcp":
            sock.listen(BACKLOG)  # else somebody else might be quicker to
    except OSError as error:
        sock.close()
        raise _refused(error) from None
    return sock


def _refused(error: OSError) -> DoorwardError:
    if error.errno in _NOT_TO_BE_HAD:
        return AddressInUse(os.strerror(error.errno or 0), side=Side.OURS)
    return translate(error.errno, Side.OURS)
