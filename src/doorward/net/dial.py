"""Connecting out: to the judged addresses and to no other, in the manner of Happy Eyeballs (RFC 8305).

One address is tried at once and alone. Several are interleaved by family and started a quarter of a second
apart, or as soon as the one before has failed; the first to stand wins and the rest are closed.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

from doorward.api.errors import ConnectionRefused, DoorwardError, Side, TimedOut, Unreachable
from doorward.net.leg import Leg
from doorward.net.poller import Poller
from doorward.net.reservation import bind_as_source
from doorward.net.seam import translate
from doorward.policy.model import IPAddress

if TYPE_CHECKING:
    from doorward.api.sockets import SocketName

# RFC 8305, section 5: the recommended delay between attempts.
ATTEMPT_DELAY_S: Final = 0.25
# What failed attempts say, the most telling first.
_TELLING: Final = (ConnectionRefused, TimedOut, Unreachable)
_PENDING: Final = frozenset({errno.EINPROGRESS, errno.EALREADY})
# More candidates than this are not tried: a name with hundreds of addresses must not become a scan.
ATTEMPTS_MAX: Final = 8


async def dial(
    poller: Poller,
    addresses: Sequence[IPAddress],
    port: int,
    timeout_s: float,
    source: SocketName | None = None,
) -> tuple[Leg, IPAddress]:
    """A leg to the first address that answers, and that address. `source` is the local end it is to go out from.

    Raises ConnectionRefused, Unreachable, TimedOut, OutOfResources (the last failure, when all fail), AddressInUse
    for a source that cannot be had. After failure or cancellation no socket is left.
    """
    if len(addresses) == 1:
        return await _connect(poller, addresses[0], port, timeout_s, source), addresses[0]
    try:
        async with asyncio.timeout(timeout_s):
            return await _race(poller, interleave(addresses)[:ATTEMPTS_MAX], port, timeout_s, source)
    except TimeoutError:
        raise TimedOut(f"no answer within {timeout_s:g} s", side=Side.EXTERNAL) from None


def interleave(addresses: Sequence[IPAddress]) -> list[IPAddress]:
    """Families in turn, beginning with the family of the first (RFC 8305, section 4)."""
    first_version = addresses[0].version
    first = [a for a in addresses if a.version == first_version]
    other = [a for a in addresses if a.version != first_version]
    order: list[IPAddress] = []
    for index in range(max(len(first), len(other))):
        order += first[index : index + 1] + other[index : index + 1]
    return order


async def _race(
    poller: Poller, addresses: Sequence[IPAddress], port: int, timeout_s: float, source: SocketName | None
) -> tuple[Leg, IPAddress]:
    """Start the attempts one after another; keep the winner, end the others."""
    loop = poller.loop
    waiting: dict[asyncio.Task[Leg], IPAddress] = {}
    failure: DoorwardError | None = None
    winner: Leg | None = None
    rest = list(addresses)
    try:
        while rest or waiting:
            if rest:
                address = rest.pop(0)
                waiting[loop.create_task(_connect(poller, address, port, timeout_s, source))] = address
            done, _ = await asyncio.wait(
                waiting, timeout=ATTEMPT_DELAY_S if rest else None, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                address = waiting.pop(task)
                error = task.exception()
                if error is None:
                    winner = task.result()
                    return winner, address
                if not isinstance(error, DoorwardError):
                    raise error
                failure = _more_telling(failure, error)
        assert failure is not None, "there is an address to try"
        raise failure
    finally:
        try:
            await _end(waiting)
        except asyncio.CancelledError:
            if winner is not None:
                winner.close_now()
            raise


def _more_telling(one: DoorwardError | None, other: DoorwardError) -> DoorwardError:
    """Of two failed attempts, the one that says more about the server: a family that is not there says least."""
    return other if one is None or _rank(other) <= _rank(one) else one


def _rank(error: DoorwardError) -> int:
    return next((rank for rank, kind in enumerate(_TELLING) if isinstance(error, kind)), len(_TELLING))


async def _end(attempts: Iterable[asyncio.Task[Leg]]) -> None:
    tasks = list(attempts)
    for task in tasks:
        task.add_done_callback(_discard)
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)


def _discard(attempt: asyncio.Task[Leg]) -> None:
    """An attempt that nobody waits for any more. It may have stood in the very moment another one won."""
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().close_now()


async def _connect(
    poller: Poller, address: IPAddress, port: int, timeout_s: float, source: SocketName | None
) -> Leg:
    """One attempt."""
    is_loopback = address.is_loopback
    name = None
    try:
        sock = socket.socket(
            socket.AF_INET if address.version == 4 else socket.AF_INET6,
            socket.SOCK_STREAM | socket.SOCK_NONBLOCK,
        )
    except OSError as error:
        raise translate(error.errno, Side.OURS) from None
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)  # as for accepted sockets
        if source is not None:
            bind_as_source(sock, source)
        where = (str(address), port)
        result = sock.connect_ex(where)
        if result == errno.EINPROGRESS and is_loopback:
            # Within one machine it was settled before the call came back; asking again is cheaper than waiting.
            result = sock.connect_ex(where)
        if result in _PENDING:
            await _Attempt(poller, sock).wait(timeout_s)
            result = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if result:
            raise translate(result, Side.EXTERNAL)
        if is_loopback:
            name = sock.getsockname()[:2]
            if name == where:
                # Nobody listens; the kernel connected the socket to itself: our own port was the one asked for.
                raise ConnectionRefused("the connection met itself", side=Side.EXTERNAL)
    except OSError as error:
        sock.close()
        raise translate(error.errno, Side.OURS) from None
    except BaseException:
        sock.close()
        raise
    leg = Leg(poller, sock, Side.EXTERNAL)
    leg.known_name = name
    return leg


class _Attempt:
    """Waits for one connecting socket to become writable."""

    def __init__(self, poller: Poller, sock: socket.socket) -> None:
        self._poller = poller
        self._fd = sock.fileno()
        self._done: asyncio.Future[None] = poller.loop.create_future()

    async def wait(self, timeout_s: float) -> None:
        """Raises TimedOut after the deadline."""
        self._poller.watch(self._fd, self)
        timer = self._poller.loop.call_later(timeout_s, self._expire, timeout_s)
        try:
            await self._done
        finally:
            timer.cancel()
            self._poller.unwatch(self._fd)

    def _expire(self, timeout_s: float) -> None:
        if not self._done.done():
            self._done.set_exception(TimedOut(f"no answer within {timeout_s:g} s", side=Side.EXTERNAL))

    def ready(self, fd: int, events: int) -> None:
        if not self._done.done():
            self._done.set_result(None)
