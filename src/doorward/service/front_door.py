"""Where clients come in: listeners in native code where there is a native relay, else in Python; and how many fit.

clients alive = served by Python + pairs of the relay (+ those that the front has not told us of)
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeAlias

from doorward.api.errors import Side
from doorward.net.native_relay import NativeRelay
from doorward.net.seam import translate
from doorward.service.descriptors import clients_that_fit

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from doorward.config.model import Configuration, ListenAddress
    from doorward.engine.engine import Engine
    from doorward.entry.mixed import MixedEntry
    from doorward.net.front import Front, FrontListener
    from doorward.net.listen import Listener

AnyListener: TypeAlias = "Listener | FrontListener"


class FrontDoor:
    """One for all listeners of a process."""

    def __init__(
        self, engine: Engine, entry: MixedEntry, descriptors: int, most: Callable[[], int], log: Any
    ) -> None:
        """`most` clients are allowed, 0 is any number."""
        self._engine = engine
        self._entry = entry
        self._fit = clients_that_fit(descriptors)
        self._most = most
        self._log = log
        self._shortage_told = False
        self._front: Front | None = None

    @property
    def waiting(self) -> int:
        """Clients that nobody has told us of yet."""
        return 0 if self._front is None else self._front.unknown

    def room(self) -> int:
        """How many more clients fit, into the operator's limit and into the descriptors, with the `waiting`."""
        return min(self._fit, self._most() or sys.maxsize) - self._alive

    def has_room(self) -> bool:
        """Whether one more does."""
        return self.room() > self.waiting

    def has_room_inside(self) -> bool:
        """The same for who comes to a published server; what filters carry there is no client's, and counts here."""
        return self.has_room() and len(self._engine.connections) < self._fit

    def listener(self, address: ListenAddress, sock: socket.socket | None) -> AnyListener:
        """One address; `sock` listens there already. Raises LinkError and its kind."""
        # What is for clients of listeners is loaded with the first of these: a launched program has none, and waits.
        for spoken in ("http", "socks"):
            import_module(f"doorward.entry.{spoken}")
        if isinstance(self._engine.relay, NativeRelay):
            from doorward.net.front import FrontListener

            return FrontListener(self._made_front(self._engine.relay), address.host, address.port, sock=sock)
        from doorward.net.listen import Listener

        return Listener(
            self._engine.poller,
            address.host,
            address.port,
            self._entry.on_client,
            room=self.has_room,
            on_shortage=self._shortage,
            sock=sock,
        )

    def _made_front(self, relay: NativeRelay) -> Front:
        """The one of all listeners. Raises LinkError kinds when descriptors or threads have run out."""
        if self._front is None:
            from doorward.entry.express import Express
            from doorward.net.front import Front

            express = Express(self._engine, self._entry)
            try:
                self._front = express.front = Front(
                    self._engine.poller, relay, express, room=self.room, on_shortage=self._shortage
                )
            except OSError as error:
                raise translate(error.errno, Side.OURS) from error
        return self._front

    def put_in_force(self, configuration: Configuration) -> None:
        """For clients that come from now on."""
        if self._front is not None:
            timeout_s = configuration.limits.handshake_timeout_s
            self._front.set(names_users=configuration.policy.names_users, handshake_timeout_s=timeout_s)

    def sweep(self) -> None:
        """Now and then: what was told may be told again."""
        self._shortage_told = False

    def close(self) -> None:
        """Reset whoever is on the way in. Idempotent."""
        if self._front is not None:
            self._front.close()

    @property
    def _alive(self) -> int:
        return self._entry.serving + len(self._engine.relayed)

    def _shortage(self, why: str) -> None:
        """New clients wait in the backlog. Told once until the next sweep: it happens in bursts."""
        if not self._shortage_told:
            self._shortage_told = True
            self._log.warning("new clients have to wait", why=why, clients=self._alive)
