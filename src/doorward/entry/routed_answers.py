"""Datagrams back to machines that route through this one, each from the address that the machine had sent to.

Each such address needs a socket that is bound to it. The kernel prefers that socket to the catching one for whatever is
sent there next, so what it receives is handed over as caught. Sockets that were not used for longest make room.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from doorward.api.errors import DoorwardError, Side, Terminating
from doorward.capture.sockets import answering
from doorward.net.caught_datagrams import as_caught
from doorward.net.datagrams import DatagramSocket
from doorward.net.seam import translate

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from doorward.api.sockets import SocketName
    from doorward.net.caught_datagrams import OnCaught
    from doorward.net.datagrams import Inbox, SocketAddress

# Far ends that answer at once; where there are more, sockets are made anew again and again.
SOCKETS_MAX: Final = 4096


class RoutedAnswers:
    """See the module. `dropped` counts datagrams that did not reach their client."""

    def __init__(
        self,
        inbox: Inbox,
        on_caught: OnCaught,
        sockets_max: int = SOCKETS_MAX,
        make: Callable[[str, int], socket.socket] = answering,
    ) -> None:
        """`make` binds a UDP socket to somebody else's address and port; raises OSError."""
        self._sockets_max = min(sockets_max, SOCKETS_MAX)
        self._inbox = inbox
        self._on_caught = on_caught
        self._make = make
        self._sockets: OrderedDict[SocketName, DatagramSocket] = OrderedDict()
        self._closed = False
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._sockets)

    def send(self, source: SocketName, payload: memoryview | bytes, client: SocketAddress) -> bool:
        """See `SendsAnswers`."""
        sock = self._sockets.get(source)
        if sock is None:
            try:
                sock = self._open(source)
            except DoorwardError:
                self.dropped += 1
                return False
        else:
            self._sockets.move_to_end(source)
        if sock.send(payload, client):
            return True
        self.dropped += 1
        return False

    def close(self) -> None:
        """No more answers. Idempotent."""
        self._closed = True
        while self._sockets:
            self._sockets.popitem()[1].close()

    def _open(self, source: SocketName) -> DatagramSocket:
        """Raises LinkError kinds, OutOfResources."""
        if self._closed:
            raise Terminating("no answers are sent any more")
        try:
            sock = self._make(*source)
        except OSError as error:
            raise translate(error.errno, Side.OURS) from None

        meant_for = as_caught(*source)

        def on_datagram(payload: memoryview, client: SocketAddress) -> None:
            self._on_caught(payload, client, meant_for)

        opened = DatagramSocket(self._inbox, sock, on_datagram)
        opened.raise_receive_buffer()
        opened.start()
        while len(self._sockets) >= self._sockets_max:
            self._sockets.popitem(last=False)[1].close()
        self._sockets[source] = opened
        return opened
