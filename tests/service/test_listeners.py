from __future__ import annotations

from typing import cast

import pytest

from doorward.api.errors import OutOfResources
from doorward.config.model import ListenAddress
from doorward.net.listen import Listener
from doorward.service.listeners import CannotListen, Listeners

A, B, C = (ListenAddress("127.0.0.1", port) for port in (1, 2, 3))


class Made:
    """Stands in for listeners, and writes down what happens to them."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.refused: set[ListenAddress] = set()

    def make(self, address: ListenAddress) -> Listener:
        if address in self.refused:
            raise OutOfResources("address in use")
        self.told.append(f"bound {address.port}")
        return cast(Listener, _Listener(self, address))


class _Listener:
    def __init__(self, made: Made, address: ListenAddress) -> None:
        self._made = made
        self.name = (address.host, address.port)

    def start(self) -> None:
        self._made.told.append(f"started {self.name[1]}")

    def close(self) -> None:
        self._made.told.append(f"closed {self.name[1]}")


def test_new_ones_are_bound_before_old_ones_are_closed_and_the_same_ones_stay() -> None:
    made = Made()
    listeners = Listeners(made.make)
    listeners.commit(listeners.prepare([A, B]))
    made.told.clear()
    listeners.commit(listeners.prepare([B, C]))
    assert made.told == ["bound 3", "started 3", "closed 1"]
    assert listeners.addresses == [B_NAME, ("127.0.0.1", 3)]


B_NAME = ("127.0.0.1", 2)


def test_one_that_cannot_be_bound_leaves_everything_as_it_was() -> None:
    made = Made()
    listeners = Listeners(made.make)
    listeners.commit(listeners.prepare([B]))
    made.told.clear()
    made.refused = {C}
    with pytest.raises(CannotListen, match=r"127\.0\.0\.1 port 3: address in use"):
        listeners.prepare([A, B, C])
    assert made.told == ["bound 1", "closed 1"]
    assert listeners.addresses == [B_NAME]


def test_what_was_prepared_for_nothing_is_closed_and_what_is_in_force_is_not() -> None:
    made = Made()
    listeners = Listeners(made.make)
    listeners.commit(listeners.prepare([B]))
    prepared = listeners.prepare([A, B])
    made.told.clear()
    listeners.abandon(prepared)
    assert made.told == ["closed 1"]


def test_closing_twice_closes_once() -> None:
    made = Made()
    listeners = Listeners(made.make)
    listeners.commit(listeners.prepare([A]))
    made.told.clear()
    listeners.close()
    listeners.close()
    assert made.told == ["closed 1"]
