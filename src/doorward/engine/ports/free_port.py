"""Which port to listen on when the client leaves it to us: any, or one of those that the policy's rules name.

Each is taken first and judged then, with its real number. Knows sockets only as something that can be had or not.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, NamedTuple
from weakref import WeakKeyDictionary

from doorward.api.errors import AddressInUse, Side
from doorward.net.reservation import Reservation
from doorward.policy.model import PORT_MAX, Action

if TYPE_CHECKING:
    from doorward.api.contracts import TransportName
    from doorward.policy.evaluation import Policy


class Ports(NamedTuple):
    """Both ends included; 0 to 0 leaves the choice to the kernel."""

    first: int
    last: int


# Ranges that are tried for one wish, in the order of the rules; each costs a socket and a judgement.
RANGES_MAX: Final = 16
# Ports of one range that are tried before it counts as used up.
PORTS_TRIED_MAX: Final = 32
# Places that are tried for a run of ports.
RUNS_TRIED_MAX: Final = 32
# Below the ports that kernels hand out: among those, on a busy machine, hardly two neighbours are free.
QUIET_PORTS: Final = Ports(16_384, 32_767)
ANY_PORT: Final = Ports(0, 0)
_known: WeakKeyDictionary[Policy, tuple[Ports, ...]] = WeakKeyDictionary()


def candidates(policy: Policy, wish: int) -> Iterator[Ports]:
    """What to try, in this order: the port that was asked for, any port, the ranges of the rules."""
    if wish:
        yield Ports(wish, wish)
    yield ANY_PORT
    ranges = _known.get(policy)
    if ranges is None:
        ranges = _known[policy] = tuple(_named(policy))
    yield from ranges


def reserve(address: str, ports: Ports) -> Reservation:
    """One of them. Raises AddressInUse if none is to be had, BadArgument, OutOfResources."""
    width = ports.last - ports.first + 1
    start = secrets.randbelow(width)  # not to be guessed: who knows the port may come before the peer
    failure: AddressInUse | None = None
    for step in range(min(width, PORTS_TRIED_MAX)):
        try:
            return Reservation(address, ports.first + (start + step) % width)
        except AddressInUse as error:
            failure = error
    assert failure is not None, "there is a port to try"
    raise failure


def reserve_run(transport: TransportName, address: str, port: int, count: int) -> list[Reservation]:
    """Consecutive ports from `port` on, or wherever there are so many (0). Raises AddressInUse and as `reserve`."""
    failure: AddressInUse | None = None
    for step in range(1 if port or count == 1 else RUNS_TRIED_MAX):
        run: list[Reservation] = []
        start = port
        if step:
            start = QUIET_PORTS.first + secrets.randbelow(QUIET_PORTS.last - QUIET_PORTS.first)
        try:
            while len(run) < count:
                number = run[-1].name[1] + 1 if run else start
                if number > PORT_MAX:
                    raise AddressInUse(f"{count} ports do not end before {PORT_MAX}", side=Side.OURS)
                run.append(Reservation(address, number, transport))
        except BaseException as error:
            for reservation in run:
                reservation.close()
            if not isinstance(error, AddressInUse):
                raise
            failure = error
        else:
            return run
    assert failure is not None, "it was tried at least once"
    raise failure


def _named(policy: Policy) -> Iterator[Ports]:
    """The inbound ranges of rules that allow, each once; a rule for all ports adds nothing to any port."""
    found: dict[Ports, None] = {}
    for rule in policy.rules:
        if rule.action is not Action.ALLOW:
            continue
        for transport, first, last in rule.ports or ():
            if transport == "tcp-in" and (first, last) != (0, PORT_MAX):
                found[Ports(max(first, 1), last)] = None
        if len(found) >= RANGES_MAX:
            break
    yield from list(found)[:RANGES_MAX]
