"""TLS over a socket that a filter holds: a leg of its connection, or a network socket of its own.

What was covered cannot be used any more, whether the handshake succeeds or not; the TLS socket ends with it.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from doorward.api.errors import NotSupported, Terminating
from doorward.engine.handle import Handle
from doorward.engine.joint import JointEnd
from doorward.engine.sockets.network_socket import NetworkSocket
from doorward.net.tls import accept_tls, connect_tls

if TYPE_CHECKING:
    from doorward.api.sockets import Socket
    from doorward.net.carrier import Carrier
    from doorward.net.tls_leg import TLSLeg


class TLSSocket(Handle):
    """See `api.TLSSocket`."""

    __slots__ = ("alpn", "peer_certificate", "server_name", "version")

    def __init__(self, leg: TLSLeg, below: Handle | None) -> None:
        super().__init__(leg, below)
        self.version = leg.version
        self.alpn = leg.alpn
        self.server_name = leg.server_name
        self.peer_certificate = leg.peer_certificate


async def connect_over(
    socket: Socket, context: ssl.SSLContext, server_name: str | None, *, timeout_s: float
) -> TLSSocket:
    """As a client toward whoever is at the other end. Raises TLSFailed, LinkError kinds, NotSupported, Terminating."""
    carrier = _taken(socket)
    leg = await connect_tls(carrier, context, server_name, timeout_s=timeout_s)
    return _laid(socket, leg)


async def accept_over(socket: Socket, context: ssl.SSLContext, *, timeout_s: float) -> TLSSocket:
    """As a server toward whoever is at the other end. Raises as above."""
    carrier = _taken(socket)
    leg = await accept_tls(carrier, context, timeout_s=timeout_s)
    return _laid(socket, leg)


def _taken(socket: Socket) -> Carrier:
    """What stands behind a socket that a filter holds; its own calls are barred from now on."""
    if isinstance(socket, Handle):
        if socket.barred:
            raise Terminating("this socket is not yours any more")
        carrier = socket.carrier
        if carrier.busy:
            raise NotSupported("a task still waits for this socket")
        socket.cover(carrier)
        return carrier
    if isinstance(socket, NetworkSocket | JointEnd):
        if socket.busy:
            raise NotSupported("a task still waits for this socket")
        return socket
    raise NotSupported("TLS needs a stream that the firewall has made")


def _laid(socket: Socket, leg: TLSLeg) -> TLSSocket:
    below = socket if isinstance(socket, Handle) else None
    if below is not None:
        below.cover(leg)
    return TLSSocket(leg, below)
