"""A listening socket that never spins and never dies: it pauses when descriptors run short and goes on by itself."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from typing import Final, TypeAlias

from doorward.api.errors import Side
from doorward.net.leg import reset_on_close
from doorward.net.poller import Poller
from doorward.net.seam import OUT_OF_RESOURCES, translate

# The kernel cuts this to net.core.somaxconn; a burst of clients waits there while we are busy.
BACKLOG: Final = 4096
# Clients that speak first (SOCKS, HTTP): the kernel keeps a connection to itself until they have, or this long.
DEFER_S: Final = 1
# New clients taken in one turn; the rest wait for those that are here already.
ACCEPTS_MAX: Final = 64
PAUSE_S: Final = 0.1

OnClient: TypeAlias = Callable[[socket.socket, tuple[str, int]], None]


class Listener:
    """One bound address. `on_client` gets each accepted, non-blocking socket with the client's address."""

    def __init__(
        self,
        poller: Poller,
        host: str,
        port: int,
        on_client: OnClient,
        *,
        room: Callable[[], bool],
        on_shortage: Callable[[str], None],
        sock: socket.socket | None = None,
    ) -> None:
        """Bind and listen at once, accept after `start`. `room` says whether one more client fits.

        `sock` listens there already and belongs to the listener from now on. Raises LinkError and its kind when the
        address cannot be bound.
        """
        self._poller = poller
        self._on_client = on_client
        self._room = room
        self._on_shortage = on_shortage
        self._pause: asyncio.TimerHandle | None = None
        self._socket = bind(host, port) if sock is None else sock
        self.name: tuple[str, int] = self._socket.getsockname()[:2]

    def start(self) -> None:
        """Begin to accept."""
        self._poller.watch(self._socket.fileno(), self)

    def ready(self, fd: int, events: int) -> None:
        """An edge: accept until the kernel says wait, the turn is over, or there is no room."""
        if self._pause is not None or self._socket.fileno() < 0:
            return
        for _ in range(ACCEPTS_MAX):
            if not self._room():
                self._wait("no room for another connection")
                return
            try:
                client, address = self._socket.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno in OUT_OF_RESOURCES:
                    self._wait(translate(error.errno, Side.OURS).detail)
                    return
                if error.errno in (errno.EBADF, errno.EINVAL):
                    raise
                continue  # the client went away before it was taken: accept(2), error handling
            client.setblocking(False)
            self._welcome(client, address[:2])
        self._poller.loop.call_soon(self.ready, fd, events)

    def close(self) -> None:
        """Stop listening; who waits in the backlog is reset. Idempotent."""
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        if self._socket.fileno() >= 0:
            self._poller.unwatch(self._socket.fileno())
            self._socket.close()

    def _welcome(self, client: socket.socket, address: tuple[str, int]) -> None:
        """Hand one client over. If that fails, it is our own bug: it costs this client, and not the listener."""
        try:
            self._on_client(client, address)
        except Exception as error:
            reset_on_close(client)
            client.close()
            context = {"message": "a new client could not be taken", "exception": error}
            self._poller.loop.call_exception_handler(context)

    def _wait(self, why: str) -> None:
        """Leave the clients in the backlog for a moment: old connections live on, and some will end."""
        self._on_shortage(why)
        self._pause = self._poller.loop.call_later(PAUSE_S, self._resume)

    def _resume(self) -> None:
        self._pause = None
        self.ready(self._socket.fileno(), 0)


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens at this address. Raises LinkError and its kind."""
    sock = unbound(host)
    try:
        sock.bind((host, port))
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise translate(error.errno, Side.OURS) from None
    return sock


def unbound(host: str) -> socket.socket:
    """A socket for clients at this address, not bound yet. Raises LinkError and its kind."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    except OSError as error:  # no descriptor, or no such family on this machine
        raise translate(error.errno, Side.OURS) from None
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Accepted sockets inherit it: handshake answers and small messages must not wait for an acknowledgement.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, DEFER_S)
        # An urgent byte (Telnet, FTP's ABOR) stays in its place in the stream: RFC 6093, section 4.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    except OSError as error:
        sock.close()
        raise translate(error.errno, Side.OURS) from None
    return sock
