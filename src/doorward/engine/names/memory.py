"""Which names a session has asked for, and which addresses it was told: so that a connection has its name again.

An address may have been the answer for several names. Which of them a connection means nobody can tell, so it is the
one asked for last that policy lets go there; if it lets none, the one asked for last. Nothing is opened by that: with
each of these names the client could have asked a proxy for the same connection. An address that was never an answer,
or not within a day, is an address.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from doorward.engine.judgement import inputs_of
from doorward.engine.target import Target
from doorward.policy.address import canonical
from doorward.policy.model import Action

if TYPE_CHECKING:
    from doorward.api.contracts import TransportName
    from doorward.engine.engine import Engine
    from doorward.engine.session import Session
    from doorward.policy.model import IPAddress

# What a program that talks to half the world asks for in a day; some 300 bytes each.
ADDRESSES_MAX: Final = 4096
# Servers that many names share are common; a name asked for before the last eight is not what is meant.
NAMES_MAX: Final = 8
# Programs keep an address for as long as they run, whatever its TTL says. An address that has changed hands since
# must not stay open under the old name for ever.
KEPT_S: Final = 86_400.0


class Memory:
    """Addresses, each with its names and when they were asked for. The address answered longest ago makes room."""

    __slots__ = ("_addresses",)

    def __init__(self) -> None:
        self._addresses: OrderedDict[IPAddress, dict[str, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._addresses)

    def keep(self, name: str, addresses: Iterable[IPAddress], now_s: float) -> None:
        """These were the answer for that name. `now_s` runs evenly."""
        for address in addresses:
            names = self._addresses.setdefault(address, {})
            self._addresses.move_to_end(address)
            names.pop(name, None)  # so that it stands last
            names[name] = now_s
            if len(names) > NAMES_MAX:
                del names[next(iter(names))]
        while len(self._addresses) > ADDRESSES_MAX:
            self._addresses.popitem(last=False)

    def names(self, address: IPAddress, now_s: float) -> tuple[str, ...]:
        """The names that led there within a day, the one asked for last first."""
        names = self._addresses.get(address)
        if names is None:
            return ()
        return tuple(name for name, asked_s in reversed(names.items()) if now_s - asked_s < KEPT_S)


def target_of_address(
    engine: Engine, session: Session, address: IPAddress, port: int, transport: TransportName = "tcp"
) -> Target:
    """What a client means that connects to an address: that address, with the name it was asked for under, if any.

    The address is the one that will be judged and dialled, whatever the name stands for by now.
    """
    address = canonical(address)
    asked = session.asked
    names = () if asked is None else asked.memory.names(address, engine.poller.loop.time())
    targets = [Target(name, address, port) for name in names]
    if len(targets) < 2:
        return targets[0] if targets else Target(None, address, port)
    policy, is_own, now_s = engine.ruling.policy, engine.own_addresses.is_own, time.time()
    for target in targets:
        inputs = inputs_of(session, target, session.user, now_s, is_own, transport)
        if policy.judge(inputs).action is not Action.DENY:
            return target
    return targets[0]
