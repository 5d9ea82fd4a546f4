"""The front: accepts clients, hears them out, connects and answers them in native code, and leaves the rest to Python.

It is a fast lane beside `net/listen` and not another way in: it answers only a client that asks to CONNECT, by SOCKS5
without a password or by HTTP with a head that comes whole. Python is told what was asked, and says where to dial or
takes the client itself, with every byte that it has said. Who is dialled goes on to the relay under the same number,
without having been a socket in Python.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from doorward.api.errors import Side
from doorward.net.leg import plain_name, reset_on_close
from doorward.net.listen import PAUSE_S, bind
from doorward.net.seam import translate

if TYPE_CHECKING:
    import doorward_native as native

    from doorward.net.native_relay import NativeRelay
    from doorward.net.poller import Poller
    from doorward.net.relay import Limits
    from doorward.policy.model import IPAddress
else:
    try:
        import doorward_native as native
    except ImportError:  # not built: there is no native relay either, and nobody asks for a front
        native = None

_NUMBER_MAX: Final = 2**64 - 1
_VERSION: Final = b"\x05"
_NOBODY: Final = ("0.0.0.0", 0)  # a client whose address is not known any more


class Visitor(NamedTuple):
    """A client that Python serves from its first byte on.

    `answered` says that it was told already that it needs no password. `errno` is how it failed meanwhile, 0 if it
    has not; `late` that its time is up. It came `waited_s` ago.
    """

    socket: socket.socket
    address: tuple[str, int]
    said: bytes
    answered: bool
    errno: int = 0
    waited_s: float = 0.0
    late: bool = False


class Guests(Protocol):
    """Who is told of clients."""

    def visited(self, visitor: Visitor) -> None:
        """Serve this one."""

    def asked(self, client_id: int, address: tuple[str, int], request: bytes) -> None:
        """A whole request to CONNECT, of SOCKS5 or HTTP. `Front.dial` or `Front.take` must follow."""

    def stood(self, client_id: int, connect_us: int) -> None:
        """The relay has it."""

    def failed(self, client_id: int, visitor: Visitor) -> None:
        """Nobody was reached; the client waits for its answer.

        `errno` says why: 0 is that time was up, ECANCELED that it was killed, ELOOP that the dial met itself.
        """

    def lost(self, client_id: int, number: int) -> None:
        """It is over, with nobody to be told: the client went away before its answer, or this failure is ours."""


class Front:
    """See the module. One for all listeners of a process."""

    def __init__(
        self,
        poller: Poller,
        relay: NativeRelay,
        guests: Guests,
        *,
        room: Callable[[], int],
        on_shortage: Callable[[str], None],
    ) -> None:
        """`room` is how many more clients fit, beside the `unknown`.

        Raises OSError when descriptors or threads have run out.
        """
        self._poller = poller
        self._relay = relay
        self._guests = guests
        self._room = room
        self._on_shortage = on_shortage
        self._pause: asyncio.TimerHandle | None = None
        self._short: int | None = None  # clients wait: 0 for want of room, else an errno
        self._native = native.Front(relay.native)
        self._native.set_room(max(0, room()))
        try:
            poller.loop.add_reader(self._native.fileno(), self.hear)
        except OSError:
            self._native.close()
            raise
        relay.join(self)

    def __len__(self) -> int:
        return len(self._native)

    @property
    def unknown(self) -> int:
        """Clients that `room` does not count yet."""
        return self._native.unknown()

    def set(self, *, names_users: bool, handshake_timeout_s: float) -> None:
        """What is in force for clients that come."""
        self._native.set(names_users, handshake_timeout_s)

    def listen(self, sock: socket.socket) -> int:
        """Accept there. The socket is taken over, and must not block. Returns a number for `unlisten`.

        Raises OutOfResources and its like, with the socket closed.
        """
        try:
            return self._native.listen(sock.detach())
        except OSError as error:
            raise translate(error.errno, Side.OURS) from None

    def unlisten(self, listener_id: int) -> None:
        """Accept no more there. Idempotent."""
        self._native.unlisten(listener_id)

    def dial(self, client_id: int, address: IPAddress, port: int, limits: Limits, timeout_s: float) -> None:
        """Connect a client that has asked. `stood`, `failed` or `lost` follows.

        After `stood` the relay tells of its end, but where `lost` does.
        """
        idle_s, bytes_max, bytes_per_second = limits
        self._native.dial(
            client_id,
            address.packed,
            port,
            timeout_s,
            idle_s,
            min(bytes_max, _NUMBER_MAX),
            min(bytes_per_second, _NUMBER_MAX),
        )

    def take(self, client_id: int, address: tuple[str, int]) -> Visitor | None:
        """Have a client that has asked, or is being connected. None if it is not here any more."""
        taken = self._native.take(client_id)
        if taken is None:
            return None
        fd, said, waited_s = taken
        return Visitor(_adopt(fd, address), address, said, answered=is_socks(said), waited_s=waited_s)

    def kill(self, client_id: int) -> bool:
        """End a dial. False if this client is not here: another answer is on its way, or it is the relay's."""
        visitor = self.take(client_id, _NOBODY)
        if visitor is None:
            return False
        self._guests.failed(client_id, visitor._replace(errno=errno.ECANCELED))
        return True

    def hear(self) -> None:
        """Hand on what has happened."""
        for letter in self._native.letters():
            if not self._do(self._tell, *letter):
                self._give_up(letter[1])
        room = self._count()
        short, self._short = self._short, None
        if short is not None and (short or room <= self.unknown):
            self._wait(short)
        elif short is not None:
            self._native.resume()  # some have ended since the front was told how many fit

    def close(self) -> None:
        """Reset whoever is here, and end the thread. Idempotent."""
        if self._pause is not None:
            self._pause.cancel()
        if (bell := self._native.fileno()) < 0:
            return
        self._poller.loop.remove_reader(bell)
        for letter in self._native.close():
            kind, _, fd, *_ = letter
            if kind in ("visitor", "late"):
                _reset(fd)
            elif kind not in ("asked", "short"):  # what has begun has its end
                self._do(self._tell, *letter)

    def _tell(
        self,
        kind: str,
        client_id: int,
        fd: int,
        host: str,
        port: int,
        said: bytes,
        answered: bool,
        number: int,
        waited_s: float,
    ) -> None:
        guests = self._guests
        if kind == "asked":
            guests.asked(client_id, (host, port), said)
        elif kind == "stood":
            guests.stood(client_id, number)
        elif kind == "lost":
            guests.lost(client_id, number)
        elif kind == "short":
            self._short = number or self._short or 0
        else:
            sock = _adopt(fd, (host, port))
            try:
                address = (host, port) if host else plain_name(sock.getpeername())
            except OSError as error:
                address, number = _NOBODY, number or error.errno or errno.ENOTCONN
            visitor = Visitor(sock, address, said, answered, number, waited_s, kind == "late")
            try:
                if kind == "failed":
                    guests.failed(client_id, visitor)
                else:
                    guests.visited(visitor)
            except BaseException:
                reset_on_close(sock)
                sock.close()
                raise

    def _do(self, act: Callable[..., None], *arguments: Any) -> bool:
        """Whether it was done. What is raised is our own bug: it costs this client, and nobody else."""
        try:
            act(*arguments)
        except Exception as error:
            context = {"message": "a client could not be served", "exception": error}
            self._poller.loop.call_exception_handler(context)
            return False
        return True

    def _give_up(self, client_id: int) -> None:
        """End this client, wherever it is by now, and what was begun for it."""
        taken = self._native.take(client_id)
        if taken is not None:
            _reset(taken[0])
        self._relay.native.kill(client_id)
        self._do(self._guests.lost, client_id, errno.EIO)

    def _count(self) -> int:
        room = max(0, self._room())
        self._native.set_room(room)
        return room

    def _wait(self, number: int) -> None:
        """Leave the clients in the backlog for a moment: old connections live on, and some will end."""
        self._on_shortage(translate(number, Side.OURS).detail if number else "no room for another connection")
        if self._pause is None:
            self._pause = self._poller.loop.call_later(PAUSE_S, self._resume)

    def _resume(self) -> None:
        self._pause = None
        self._count()
        self._native.resume()


class FrontListener:
    """One bound address of a front. The like of `net.listen.Listener`."""

    def __init__(self, front: Front, host: str, port: int, *, sock: socket.socket | None = None) -> None:
        """Bind and listen at once, accept after `start`; see `Listener`. Raises as it does."""
        self._front = front
        self._socket = bind(host, port) if sock is None else sock
        self._id: int | None = None
        self.name: tuple[str, int] = self._socket.getsockname()[:2]

    def start(self) -> None:
        """Begin to accept. No descriptor is needed for that. Raises OutOfResources when memory has run out."""
        self._id = self._front.listen(self._socket)

    def close(self) -> None:
        """Stop listening; who waits in the backlog is reset. Idempotent."""
        if self._id is not None:
            self._front.unlisten(self._id)
            self._id = None
        self._socket.close()


def is_socks(said: bytes) -> bool:
    """Whether a client that has asked is one of SOCKS5, and was told that it needs no password; else it is of HTTP."""
    return said[:1] == _VERSION


def _reset(fd: int) -> None:
    with socket.socket(fileno=fd) as sock:
        reset_on_close(sock)


def _adopt(fd: int, address: tuple[str, int]) -> socket.socket:
    """A client's socket; a number for the interface belongs to an address that is empty."""
    family = socket.AF_INET6 if not address[0] or ":" in address[0] else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM, 0, fileno=fd)
    sock.setblocking(False)
    return sock
