"""From a target to the addresses that may be dialled: policy asked, the name resolved once, each candidate judged.

The address that was judged is the address that is dialled. A name that policy refuses whatever its address is
never looked up.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from doorward.engine.target import Target
from doorward.net.resolve import Addresses
from doorward.policy.address import canonical, forms
from doorward.policy.evaluation import Policy
from doorward.policy.model import UNKNOWN, Action, Decision, Inputs, IPAddress, Transport, Unknown
from doorward.policy.schedule import minute_of_week

if TYPE_CHECKING:
    from doorward.engine.session import Session


class Resolve(Protocol):
    """Names to addresses."""

    async def resolve(self, name: str) -> Addresses: ...


# Answers remembered within one second.
REMEMBERED_MAX: Final = 4096


class Judged(NamedTuple):
    """The answer, and the allowed addresses in the order in which they may be tried, each with its own answer."""

    decision: Decision
    addresses: dict[IPAddress, Decision]


class Judgements:
    """Answers of the last moment: a program that opens many connections to one place asks the same again and again.

    An answer depends on the client, the target, the policy (this belongs to one), the minute, and what names and
    our own addresses are. The last three may change, so an answer holds for a second and no longer.
    """

    def __init__(self) -> None:
        self._second = 0
        self._answers: dict[tuple[Session, Target, str | Unknown | None], Judged] = {}

    def recall(
        self, session: Session, target: Target, user: str | Unknown | None, now_s: float
    ) -> Judged | None:
        """The same client's same question of this second, or None."""
        second = int(now_s)
        if second != self._second:
            self._second = second
            self._answers.clear()
        return self._answers.get((session, target, user))

    def keep(self, session: Session, target: Target, user: str | Unknown | None, judged: Judged) -> None:
        """Remember until the second is over; `recall` was asked before, and has looked at the time."""
        if len(self._answers) < REMEMBERED_MAX:
            self._answers[session, target, user] = judged


def local_minute(now_s: float) -> int:
    """The minute of the week, in the machine's own time zone."""
    return _local_minute(int(now_s // 60))


@lru_cache(maxsize=16)
def _local_minute(minutes: int) -> int:
    return minute_of_week(datetime.fromtimestamp(minutes * 60, UTC).astimezone())


async def judge(
    policy: Policy,
    resolver: Resolve,
    is_own: Callable[[IPAddress], bool],
    session: Session,
    target: Target,
    *,
    user: str | Unknown | None,
    now_s: float,
    transport: Transport = "tcp",
) -> Judged:
    """Judge, resolving only if the answer hangs on the address. Raises what the resolver raises.

    Inbound, the target is the peer with our own port. With neither name nor address nobody has arrived yet: then the
    answer is no, or needs the address, which is to be judged again for each peer.
    """
    inputs = inputs_of(session, target, user, now_s, is_own, transport)
    decision = policy.judge(inputs)
    if target.address is not None:
        return _of_one(decision, target.address)
    if decision.needs != "address" or target.host is None:
        return Judged(decision, {})  # without a name, a peer that has yet to arrive
    candidates = dict.fromkeys(canonical(found) for found in await resolver.resolve(target.host))
    decisions = {
        a: policy.judge(inputs._replace(address=a, own=is_leading_to(a, is_own))) for a in candidates
    }
    return _of_several(decisions)


def judge_address(
    policy: Policy,
    is_own: Callable[[IPAddress], bool],
    session: Session,
    target: Target,
    address: IPAddress,
    *,
    user: str | Unknown | None,
    now_s: float,
) -> Judged:
    """The same for a target that has its address: nothing to wait for."""
    return _of_one(policy.judge(inputs_of(session, target, user, now_s, is_own)), address)


def inputs_of(
    session: Session,
    target: Target,
    user: str | Unknown | None,
    now_s: float,
    is_own: Callable[[IPAddress], bool],
    transport: Transport = "tcp",
) -> Inputs:
    """What the judgement is given, before a name was resolved."""
    address = target.address
    return Inputs(
        transport,
        session.address,
        target.host,
        UNKNOWN if address is None else address,
        target.port,
        user,
        session.groups,
        local_minute(now_s),
        address is not None and is_leading_to(address, is_own),
        session.programs,
    )


def is_leading_to(address: IPAddress, is_own: Callable[[IPAddress], bool]) -> bool:
    """Also through a form that embeds one of our addresses."""
    return any(is_own(form) for form in forms(address))


def _of_one(decision: Decision, address: IPAddress) -> Judged:
    return Judged(decision, {address: decision} if decision.allowed else {})


def _of_several(decisions: dict[IPAddress, Decision]) -> Judged:
    """The allowed ones decide; without one, whoever might still be allowed; without that, the first refusal."""
    allowed = {address: decision for address, decision in decisions.items() if decision.allowed}
    if allowed:
        return Judged(next(iter(allowed.values())), allowed)
    undecided = (d for d in decisions.values() if d.action is Action.NEEDS)
    return Judged(next(undecided, None) or next(iter(decisions.values())), {})
