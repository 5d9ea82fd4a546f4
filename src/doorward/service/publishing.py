"""The published servers in force. New addresses are bound before old ones are given up, so a reload can be called off.

A published server that a reload does not change goes on as it is. One that has changed is opened anew at the sockets
that the old one had, so that nobody who waits is turned away; who had come through goes on as it began.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from doorward.api.errors import DoorwardError
from doorward.net.published import Held
from doorward.net.transparent import why_not
from doorward.service.listeners import CannotListen
from doorward.service.status import shown_address

if TYPE_CHECKING:
    import socket

    from doorward.config.model import Published, PublishedAddress
    from doorward.engine.engine import Engine
    from doorward.engine.publishing.house import House
    from doorward.engine.publishing.servers import Server


class New(NamedTuple):
    """A published server that is not open yet, and its sockets."""

    house: House
    ends: dict[PublishedAddress, socket.socket]


class Prepared(NamedTuple):
    """What is to be in force: those that stay, those to be opened, and the addresses of all."""

    staying: list[House]
    new: list[New]
    held: dict[PublishedAddress, Held]


class CannotPublish(CannotListen):
    """A server cannot be published as the policy says. The message names it and says why."""


class Publishing:
    """See the module."""

    def __init__(
        self,
        engine: Engine,
        log: Any,
        room: Callable[[], bool],
        take: Callable[[PublishedAddress], socket.socket | None] = lambda here: None,
    ) -> None:
        """`room` says whether one more connection fits; `take` has what is bound already, in one of several workers."""
        self._engine = engine
        self._log = log
        self._room = room
        self._take = take
        self._houses: list[House] = []
        self._leaving: list[House] = []  # closed, with connections that go on
        self._held: dict[PublishedAddress, Held] = {}
        self._incomplete: set[Published] = set()  # with a port that does not stand

    @property
    def addresses(self) -> dict[str, list[tuple[str, int]]]:
        """Where each published server is reached, by its name."""
        return {
            house.published.name: [
                self._held[here].name for here in house.published.listen if here in self._held
            ]
            for house in self._houses
        }

    def prepare(self, wanted: Sequence[Published]) -> Prepared:
        """Everything that can fail. `commit` or `abandon` must follow. Raises CannotPublish."""
        known = {house.published: house for house in self._houses if house.published not in self._incomplete}
        prepared = Prepared([], [], {})
        try:
            for published in wanted:
                self._hold(published, prepared)
                if published in known:
                    prepared.staying.append(known[published])
                else:
                    prepared.new.append(self._prepare(published, prepared))
        except BaseException:
            self.abandon(prepared)
            raise
        return prepared

    def abandon(self, prepared: Prepared) -> None:
        """Go on as if nothing had been prepared."""
        for new in prepared.new:
            for sock in new.ends.values():
                sock.close()
            new.house.end()
        for here in prepared.held.keys() - self._held.keys():
            prepared.held[here].close()

    def commit(self, prepared: Prepared) -> None:
        """From now on these, and no others. What is in force besides (filters, limits) is so already."""
        leaving = [house for house in self._houses if house not in prepared.staying]
        self._houses = [*prepared.staying, *(new.house for new in prepared.new)]
        given_up = [self._held[here] for here in self._held.keys() - prepared.held.keys()]
        self._held = prepared.held
        self._incomplete.clear()
        for house in leaving:
            house.close()
        for new in prepared.new:
            at = [f"{here.transport}/{shown_address(*self._held[here].name)}" for here in new.ends]
            self._log.info("a server is published", published=new.house.published.name, at=", ".join(at))
            new.house.open(new.ends)
        for held in given_up:
            held.close()
        self._leaving += leaving
        self.sweep()

    def sweep(self) -> None:
        """End what has left, once the last of its connections has ended."""
        over = [house for house in self._leaving if house.is_over]
        self._leaving = [house for house in self._leaving if not house.is_over]
        for house in over:
            house.end()

    def close(self) -> None:
        """Nobody else may come; who has come through goes on. Idempotent."""
        self.commit(Prepared([], [], {}))

    def end(self) -> None:
        """Everything that goes on ends as well. Idempotent."""
        self.close()
        for house in self._leaving:
            house.end()
        self._leaving.clear()

    def _hold(self, published: Published, prepared: Prepared) -> None:
        """Its addresses. Raises CannotPublish."""
        for here in published.listen:
            if here in prepared.held and here.port:
                continue
            try:
                found = self._held.get(here) or Held(
                    here.transport, here.address, here.port, sock=self._take(here)
                )
            except DoorwardError as error:
                raise CannotPublish(f'cannot publish "{published.name}" at {here}: {error.detail}') from error
            prepared.held[here] = found

    def _prepare(self, published: Published, prepared: Prepared) -> New:
        """Raises CannotPublish."""
        # Here, since most publish nothing, and a launched program waits for everything that is imported.
        from doorward.engine.publishing.house import House, Watch

        if published.keeps_source:
            _expect_right(published)
        try:
            house = House(self._engine, published, self._room, Watch(self._server_changed, self._port_ended))
        except DoorwardError as error:
            raise CannotPublish(f'cannot publish "{published.name}": {error.detail}') from error
        new = New(house, {})
        try:
            for here in published.listen:
                new.ends[here] = prepared.held[here].lend()
        except DoorwardError as error:
            for sock in new.ends.values():
                sock.close()
            house.end()
            raise CannotPublish(f'cannot publish "{published.name}": {error.detail}') from error
        return new

    def _server_changed(self, published: Published, server: Server, why: str) -> None:
        if why:
            self._log.warning(
                "a published server does not answer", published=published.name, server=server.name, why=why
            )
        else:
            self._log.info("a published server answers again", published=published.name, server=server.name)

    def _port_ended(self, published: Published, here: PublishedAddress, why: str) -> None:
        """A filter, or a lack of resources. Nobody is to wait there in the kernel; the next reload tries again."""
        self._log.error("a published port is closed", published=published.name, at=str(here), why=why)
        self._incomplete.add(published)
        held = self._held.pop(here, None)
        if held is not None:
            held.close()


def _expect_right(published: Published) -> None:
    """Whether we may connect from addresses that are not ours. Raises CannotPublish."""
    for version in sorted({address.version for address, _ in published.to}):
        why = why_not(version)
        if why:
            raise CannotPublish(
                f'cannot publish "{published.name}" with mode = "keep-source", which connects from addresses that are '
                f"not ours and needs CAP_NET_ADMIN (IP_TRANSPARENT: {why}); give the service this capability, or use "
                'mode = "full-proxy"'
            )
