"""Who has arrived at a filter's listening socket, and waits there until the filter accepts it."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from doorward.api.errors import OutOfResources, Side, Terminating

if TYPE_CHECKING:
    from doorward.engine.sockets.holding import Holding


class Backlog:
    """First come, first served; several may wait for the next one."""

    def __init__(self, waiting_max: int) -> None:
        self._most = waiting_max
        self._arrived: deque[Holding] = deque()
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._closed = False

    def put(self, holding: Holding) -> None:
        """One more. Raises Terminating after `close`, OutOfResources if too many wait; who has gone away does not."""
        if self._closed:
            raise Terminating("the socket does not listen any more")
        if len(self._arrived) >= self._most:
            self._arrived = deque(waiting for waiting in self._arrived if waiting.alive)
        if len(self._arrived) >= self._most:
            raise OutOfResources(f"{self._most} peers wait to be accepted", side=Side.OURS)
        self._arrived.append(holding)
        self._wake_one()

    async def get(self) -> Holding:
        """The next one that is still there. Raises Terminating after `close`. A cancelled call took nobody."""
        while True:
            while self._arrived:
                holding = self._arrived.popleft()
                if holding.alive:
                    return holding
            if self._closed:
                raise Terminating("the socket does not listen any more")
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                if waiter.done() and not waiter.cancelled():
                    self._wake_one()  # it was meant for whoever waits next
                raise
            finally:
                if not waiter.done():
                    self._waiters.remove(waiter)

    def close(self) -> None:
        """Nobody comes any more. Who has arrived may still be accepted. Idempotent."""
        self._closed = True
        while self._waiters:
            self._wake_one()

    def turn_away(self) -> None:
        """The listening socket is gone: so is everybody who waits."""
        self.close()
        while self._arrived:
            self._arrived.popleft().turn_away()

    def _wake_one(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
