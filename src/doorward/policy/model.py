"""The nouns of a policy: what is asked, what a rule says, what is answered.

Everything here is a frozen value. A rule is written with names already replaced by what they stand for
(the configuration room does that); an answer keeps what it was given, so that it can be explained later.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final, Literal, NamedTuple, TypeAlias, get_args

IPAddress: TypeAlias = IPv4Address | IPv6Address
IPNetwork: TypeAlias = IPv4Network | IPv6Network
Transport: TypeAlias = Literal["tcp", "udp", "tcp-in", "udp-in"]
"""`-in`: the firewall listens on a client's behalf, and what arrives there is the client's."""

TRANSPORTS: Final[tuple[Transport, ...]] = get_args(Transport)
INBOUND: Final[frozenset[Transport]] = frozenset({"tcp-in", "udp-in"})

PORT_MAX: Final = 65_535
MINUTES_PER_WEEK: Final = 7 * 24 * 60


class Action(enum.StrEnum):
    """What a rule does, and what an evaluation answers; only an evaluation answers `NEEDS`."""

    ALLOW = "allow"
    DENY = "deny"
    NEEDS = "needs"


class Unknown(enum.Enum):
    """The value of a field that nobody has asked for yet. It never counts as a match."""

    UNKNOWN = "unknown"


UNKNOWN: Final = Unknown.UNKNOWN


class Inputs(NamedTuple):
    """Everything a judgement depends on.

    `host` is the name the client asked for, lower case without a final dot; None if it asked for an address.
    `address` is what the name stands for, or UNKNOWN before it was resolved. `own` says that the address is
    one of the firewall's. `user` is UNKNOWN before the client was asked, None if it cannot say who it is.
    `minute_of_week` counts from Monday 00:00 local time, 0 to 10,079. `process` is what the program goes by that was
    launched behind the firewall (see `names_of_process`); empty for every other client, of whom that is not known.

    Inbound, `port` is our own port on which the firewall listens, and `address` the peer that arrives; before
    one has arrived it is UNKNOWN, and `host` is None always.
    """

    transport: Transport
    client: IPAddress
    host: str | None
    address: IPAddress | Unknown
    port: int
    user: str | Unknown | None
    groups: frozenset[str]
    minute_of_week: int
    own: bool = False
    process: frozenset[str] = frozenset()


class PortRange(NamedTuple):
    """Ports `first` to `last`, both included, of one transport."""

    transport: Transport
    first: int
    last: int

    def covers(self, transport: Transport, port: int) -> bool:
        return self.transport == transport and self.first <= port <= self.last


class Window(NamedTuple):
    """A stretch of the week in minutes from Monday 00:00; `end` is excluded and may pass the week's end."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. A field that is None does not restrict, with one exception: `ports` None of a rule that allows
    does not reach the inbound transports, so that nobody opens a listening port without having named it.

    `to_networks` and `to_names` are alternatives: either one matching is a match of `to`, and `to` restricts
    as soon as one of them is given. A name pattern is `example.org` (that name), `*.example.org` (any name
    below it) or `.example.org` (both); lower case, ASCII, no final dot.
    """

    name: str
    action: Action
    line: int = 0
    sources: tuple[IPNetwork, ...] | None = None
    to_networks: tuple[IPNetwork, ...] | None = None
    to_names: tuple[str, ...] | None = None
    ports: tuple[PortRange, ...] | None = None
    users: frozenset[str] | None = None
    groups: frozenset[str] | None = None
    windows: tuple[Window, ...] | None = None
    process: frozenset[str] | None = None

    def covers(self, transport: Transport, port: int) -> bool:
        """Whether `ports` matches."""
        if self.ports is None:
            return self.action is Action.DENY or transport not in INBOUND
        return any(ports.covers(transport, port) for ports in self.ports)


class Verdict(NamedTuple):
    """What one filter said about a connection: `joined`, `attached`, `denied`, `failed` or `noted`, and why."""

    filter: str
    verdict: str
    reason: str = ""


class Decision(NamedTuple):
    """An answer, with what it was given. Log, `explain`, tests and replay all read this one object.

    `reason` is a stable slug (docs/reasons.md). `rule` and `rule_line` name the rule that decided, or
    stopped for want of a field; a guard answers with its label (`built-in: loopback`) and line 0, and rule
    is None for the default. `needs` names the missing field when the action is `NEEDS`. `policy` is the
    revision that answered.
    """

    action: Action
    reason: str
    inputs: Inputs
    policy: str
    rule: str | None = None
    rule_line: int = 0
    needs: Literal["user", "address"] | None = None
    verdicts: tuple[Verdict, ...] = ()

    @property
    def allowed(self) -> bool:
        return self.action is Action.ALLOW


class Tried(NamedTuple):
    """How one rule fared, for `explain`: the field that settled it, what was wanted, what was there."""

    rule: str
    line: int
    outcome: Literal["match", "no match", "needs"]
    field: str | None
    wanted: str
    got: str


@dataclass(frozen=True, slots=True)
class Protocols:
    """Names of protocols and the ports they stand for."""

    ports: Mapping[str, tuple[PortRange, ...]] = field(default_factory=dict)

    def names(self, transport: Transport, port: int) -> tuple[str, ...]:
        """Every protocol whose ports include this one, in the order they were defined."""
        return tuple(
            name for name, ranges in self.ports.items() if any(r.covers(transport, port) for r in ranges)
        )


def names_of_process(paths: Iterable[str]) -> frozenset[str]:
    """What a program goes by in rules: each of its paths, and the last part of each."""
    return frozenset(name for path in paths for name in (path, path.rpartition("/")[2]))
