"""Datagrams back to a captured program, each from the address that the program had sent to.

Such a socket can only be made inside the program's namespace. The helper there makes it on request and passes it out;
what is to be sent meanwhile waits, a little. Sockets that were not used for longest make room.
"""

from __future__ import annotations

import os
import socket
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from doorward.api.errors import Side
from doorward.capture import passing
from doorward.capture.sockets import Place, place_of
from doorward.net.poller import READ
from doorward.net.seam import translate

if TYPE_CHECKING:
    from doorward.api.sockets import SocketName
    from doorward.net.datagrams import SocketAddress
    from doorward.net.poller import Poller

# Far ends that answer at once; a program that talks to more (a tracker's client) has some made anew.
SOCKETS_MAX: Final = 256
# Far ends whose socket is being made; it takes less than a millisecond.
WAITING_MAX: Final = 64
HELD_MAX: Final = 16


class Answers:
    """See the module. `dropped` counts datagrams that did not reach the program."""

    def __init__(self, poller: Poller, channel: socket.socket, sockets_max: int | None = None) -> None:
        """`channel` is the helper's, non-blocking, and stays the launcher's."""
        self._sockets_max = SOCKETS_MAX if sockets_max is None else sockets_max
        self._poller = poller
        self._channel = channel
        self._sockets: OrderedDict[SocketName, socket.socket] = OrderedDict()
        self._held: dict[str, list[tuple[bytes, SocketAddress]]] = {}
        self._open = False
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._sockets)

    def start(self) -> None:
        """From now on sockets arrive. Raises OutOfResources."""
        try:
            self._poller.watch(self._channel.fileno(), self)
        except OSError as error:
            raise translate(error.errno, Side.OURS) from None
        self._open = True

    def send(self, source: SocketName, payload: memoryview | bytes, client: SocketAddress) -> bool:
        """A datagram for the program, from `source`; False if it was dropped. Never raises, never waits."""
        sock = self._sockets.get(source)
        if sock is None:
            return self._hold(source, payload, client)
        self._sockets.move_to_end(source)
        return self._send(sock, payload, client)

    def ready(self, fd: int, events: int) -> None:
        """The helper has answered, or has ended."""
        while self._open and events & READ:
            try:
                text, descriptors = passing.receive(self._channel)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                text, descriptors = "", []
            if not text:
                self._lose_helper()
                return
            place = text.partition(" ")[0]
            self._made(place, _taken(place, descriptors))

    def close(self) -> None:
        """No more answers. Idempotent."""
        self._lose_helper()
        while self._sockets:
            self._sockets.popitem()[1].close()

    def _lose_helper(self) -> None:
        """There will be no more sockets; those that are there go on."""
        if self._open:
            self._open = False
            self._poller.unwatch(self._channel.fileno())
        self.dropped += sum(map(len, self._held.values()))
        self._held.clear()

    def _hold(self, source: SocketName, payload: memoryview | bytes, client: SocketAddress) -> bool:
        """Keep it until the socket is there, which is asked for if nobody has."""
        place = str(Place("udp", *source))
        held = self._held.get(place)
        if held is None:
            if not self._ask(place):
                self.dropped += 1
                return False
            held = self._held[place] = []
        if len(held) >= HELD_MAX:
            self.dropped += 1
            return False
        held.append((bytes(payload), client))
        return True

    def _ask(self, place: str) -> bool:
        """Whether the helper could be asked."""
        if not self._open or len(self._held) >= WAITING_MAX:
            return False
        try:
            passing.send(self._channel, place)
        except OSError:
            return False  # it is behind, or gone
        return True

    def _made(self, place: str, sock: socket.socket | None) -> None:
        """Here is what was asked for; None if it cannot be had."""
        held = self._held.pop(place, [])
        if sock is None:
            self.dropped += len(held)
            return
        sock.setblocking(False)
        while len(self._sockets) >= self._sockets_max:
            self._sockets.popitem(last=False)[1].close()
        name = sock.getsockname()[:2]
        if (before := self._sockets.pop(name, None)) is not None:
            before.close()  # nobody has asked twice; whoever answers twice gets no second descriptor
        self._sockets[name] = sock
        for payload, client in held:
            self._send(sock, payload, client)

    def _send(self, sock: socket.socket, payload: memoryview | bytes, client: SocketAddress) -> bool:
        try:
            sock.sendto(payload, client)
        except OSError:
            self.dropped += 1  # the program has closed its socket, or does not read
            return False
        return True


def _taken(place: str, descriptors: list[int]) -> socket.socket | None:
    """The socket that answers from this place; None, with all of them closed, if it is not exactly that."""
    found: socket.socket | None = None
    try:
        (number,) = descriptors
        found = socket.socket(fileno=number)
        wanted = place_of(place)
        if found.type == socket.SOCK_DGRAM and found.getsockname()[:2] == (wanted.host, wanted.port):
            return found
    except (OSError, ValueError):
        pass
    if found is not None:
        found.close()
    else:
        for number in descriptors:
            os.close(number)
    return None
