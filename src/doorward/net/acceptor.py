"""A port that is open for a while, on somebody's behalf: hands over whoever arrives, and pauses when told to.

Unlike `net/listen`, which is for clients that speak first: here a peer is taken at once (an FTP server waits for the
other side to speak), few are expected, and whether there is room is for the owner to say.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeAlias

from doorward.api.errors import AddressInUse, Side, Unreachable
from doorward.net.leg import plain_name, reset_on_close
from doorward.net.seam import OUT_OF_RESOURCES, translate

if TYPE_CHECKING:
    from doorward.api.sockets import SocketName
    from doorward.net.poller import Poller
    from doorward.policy.model import IPAddress

# Peers taken in one turn; a port scan is answered, and everybody else is served in between.
ACCEPTS_MAX: Final = 16
PAUSE_S: Final = 0.1
# Any port does: nothing is sent, the kernel only has to find the way.
_DISCARD: Final = 9

OnPeer: TypeAlias = "Callable[[socket.socket, SocketName], None]"


class Acceptor:
    """Listens on a bound socket, which it owns from now on. `on_peer` gets each accepted, non-blocking socket."""

    def __init__(
        self,
        poller: Poller,
        sock: socket.socket,
        backlog: int,
        on_peer: OnPeer,
        room: Callable[[], bool],
    ) -> None:
        """Peers may come from now on; they wait until `start`. Raises AddressInUse, OutOfResources."""
        self._poller = poller
        self._socket = sock
        self._on_peer = on_peer
        self._room = room
        self._started = False
        self._pause: asyncio.TimerHandle | None = None
        try:
            # Accepted sockets inherit both; see net/listen.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
            sock.listen(backlog)
            self.name: SocketName = sock.getsockname()[:2]
        except OSError as error:
            sock.close()
            if error.errno == errno.EADDRINUSE:  # somebody else has bound it, too, and was quicker to listen
                raise AddressInUse(error.strerror or "", side=Side.OURS) from None
            raise translate(error.errno, Side.OURS) from None

    def start(self) -> None:
        """Begin to accept. Raises OutOfResources; it is closed then."""
        try:
            self._poller.watch(self._socket.fileno(), self)
        except OSError as error:
            self.close()
            raise translate(error.errno, Side.OURS) from None
        self._started = True

    def resume(self) -> None:
        """There may be room again. Nothing happens unless it had paused for want of it."""
        if self._pause is not None:
            self._pause.cancel()
            self._resume()

    def ready(self, fd: int, events: int) -> None:
        """An edge: accept until the kernel says wait, the turn is over, or there is no room."""
        if self._pause is not None:
            return
        for _ in range(ACCEPTS_MAX):
            if self._socket.fileno() < 0:
                return  # who has come was the last
            if not self._room():
                self._wait()
                return
            try:
                peer, name = self._socket.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno in OUT_OF_RESOURCES:
                    self._wait()
                    return
                continue  # the peer went away before it was taken: accept(2), error handling
            peer.setblocking(False)
            self._welcome(peer, plain_name(name))
        self._poller.loop.call_soon(self.ready, fd, 0)

    def close(self) -> None:
        """Stop; who waits in the backlog is reset. Idempotent."""
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        if self._socket.fileno() >= 0:
            if self._started:
                self._poller.unwatch(self._socket.fileno())
            self._socket.close()

    def _welcome(self, peer: socket.socket, name: SocketName) -> None:
        """Hand one peer over. If that fails, it is our own bug: it costs this peer, and not the port."""
        try:
            self._on_peer(peer, name)
        except Exception as error:
            reset(peer)
            context = {"message": "a peer that arrived could not be taken", "exception": error}
            self._poller.loop.call_exception_handler(context)

    def _wait(self) -> None:
        """Leave peers in the backlog until `resume`, or for a moment."""
        self._pause = self._poller.loop.call_later(PAUSE_S, self._resume)

    def _resume(self) -> None:
        self._pause = None
        self.ready(self._socket.fileno(), 0)


def reset(sock: socket.socket) -> None:
    """Turn a peer away, so that it notices."""
    reset_on_close(sock)
    sock.close()


def facing(address: IPAddress) -> str:
    """Our own address from which the kernel would reach this one. Raises Unreachable, OutOfResources."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.connect((str(address), _DISCARD))
            return str(sock.getsockname()[0])
    except OSError as error:
        if error.errno in OUT_OF_RESOURCES:
            raise translate(error.errno, Side.OURS) from None
        raise Unreachable(f"no way to {address}: {error.strerror}", side=Side.OURS) from None
