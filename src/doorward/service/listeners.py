"""The listeners in force. New ones are bound before old ones are closed, so a reload can still be called off."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from doorward.api.errors import DoorwardError
from doorward.config.model import ListenAddress
from doorward.service.front_door import AnyListener

MakeListener: TypeAlias = Callable[[ListenAddress], AnyListener]
Prepared: TypeAlias = dict[ListenAddress, AnyListener]


class CannotListen(Exception):
    """An address cannot be bound. The message names it and says why."""


class Listeners:
    """All listeners by the address that was asked for."""

    def __init__(self, make: MakeListener) -> None:
        self._make = make
        self._listeners: Prepared = {}

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """What they are bound to."""
        return [listener.name for listener in self._listeners.values()]

    def prepare(self, wanted: Sequence[ListenAddress]) -> Prepared:
        """A listener for each address, bound but not accepting; those that exist stay. Raises CannotListen."""
        prepared: Prepared = {}
        for address in wanted:
            try:
                prepared[address] = self._listeners.get(address) or self._make(address)
            except DoorwardError as error:
                self.abandon(prepared)
                raise CannotListen(
                    f"cannot listen on {address.host} port {address.port}: {error.detail}"
                ) from error
        return prepared

    def abandon(self, prepared: Prepared) -> None:
        """Close what was bound for nothing."""
        for address in prepared.keys() - self._listeners.keys():
            prepared[address].close()

    def commit(self, prepared: Prepared) -> None:
        """From now on these, and no others."""
        for address in prepared.keys() - self._listeners.keys():
            prepared[address].start()
        for address in self._listeners.keys() - prepared.keys():
            self._listeners[address].close()
        self._listeners = prepared

    def close(self) -> None:
        """Stop listening. Idempotent."""
        self.commit({})
