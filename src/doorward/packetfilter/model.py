"""The nouns of the packet filter: what is captured, the policy as a tree of look-ups, and openings that come and go.

All of it is data: the compiler makes it, `text` and `orders` write it down for nft, the helper loads it. How a packet
fares in `table inet doorward`:

    prerouting   of a flow of ours (a transparent socket has it) ............ to that socket
                 to an opening (sets open4, open6) .......................... to whoever listens there
                 to an address of this machine .............................. judged with the guard; then input
                 from `networks`, through `interfaces` ...................... judged by the tree: allow, deny or up
                     up: TPROXY or redirect to the service's ports; rejected if nobody is there
                 anything else .............................................. input or forward, which are closed
    input        what prerouting has let pass, answers to our own flows, ICMP that networks need; all else is dropped
    forward      what the tree allows, both ways, and its ICMP errors; all else is dropped

What the listeners have to do: be bound, with IP_TRANSPARENT, to `tcp_port` and `udp_port` on all addresses (0.0.0.0 and
[::]); with `tcp_method` "redirect" the TCP one is an ordinary listener. Packets that go to them, and packets of sockets
bound to foreign addresses with IP_TRANSPARENT, carry `mark` from prerouting on; so that they are delivered here:

    ip rule add fwmark MARK lookup 100     ip route add local default dev lo table 100     (and with ip -6)

Whatever this machine sends itself is not looked at. A socket that keeps a client's address must not keep its port too:
the captured flow has that pair of ends already in the kernel's table of connections.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

import msgspec

FAMILY: Final = "inet"
TABLE: Final = "doorward"
OPEN: Final = {4: "open4", 6: "open6"}
"""Sets of openings, by IP version: source . protocol . address of ours . port; ranges, with timeouts."""

MARK: Final = 0x0D00_0001
"""On packets for the service, and on flows that came by an opening (`ct mark`).

`mark` + 1 is on packets that the kernel's part of the policy has allowed, `mark` + 2 on those to be redirected.
"""

LOG_GROUP: Final = 13_337
"""The NFLOG group that is ours, if nobody says otherwise."""

NETWORKS_MAX: Final = 1_024
INTERFACES_MAX: Final = 64
STEPS_MAX: Final = 65_536
CASES_MAX: Final = 262_144
OUTCOMES_MAX: Final = 65_536
NAME_CHARACTERS_MAX: Final = 256
LEASE_S_MAX: Final = 24 * 3600

Transport: TypeAlias = Literal["tcp", "udp"]
Action: TypeAlias = Literal["allow", "deny", "up"]
Field: TypeAlias = Literal["source", "port", "destination"]
Version: TypeAlias = Literal[4, 6]


class Ports(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Ports `first` to `last` of one transport, both included."""

    transport: Transport
    first: int
    last: int


class Capture(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is routed through this machine, and where the service waits for it.

    `networks` are the clients' (`192.168.0.0/16`, `fd00::/8`); with `interfaces`, which are where they are, whatever
    else comes from there is dropped as spoofed; without, what has no route back by the interface that it came by is.
    `up` are ports that always come up to the service, whatever the policy says of them (DNS that it answers itself).
    `settles` says how much the kernel decides by itself; with "nothing" only what the guard refuses, with "denials" no
    flow goes past the service. What it lets through itself gets this machine's address, as the service's own
    connections have it; for destinations in `keep_source`, and among the clients' networks, it keeps its source.
    `log_group` is the NFLOG group that hears of flows settled in the kernel; None: they are only counted.
    """

    networks: tuple[str, ...]
    interfaces: tuple[str, ...] = ()
    tcp_port: int
    udp_port: int
    tcp_method: Literal["tproxy", "redirect"] = "tproxy"
    mark: int = MARK
    keep_source: tuple[str, ...] = ()
    settles: Literal["everything", "denials", "nothing"] = "everything"
    up: tuple[Ports, ...] = ()
    log_group: int | None = None


class Outcome(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """How a flow can fare. `rule` and `reason` are those of the policy's decision; what comes up has neither."""

    action: Action
    rule: str | None = None
    line: int = 0
    reason: str = ""


class Case(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Values `first` to `last`, both included, lead to `target`."""

    first: int
    last: int
    target: int


class Step(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One look-up: `cases` are ascending and disjoint, `otherwise` is for every other value.

    A target from 0 up is an outcome, by its place in the table; one below is the step with the place -1 - target, which
    stands before this one: so that there are no loops.
    """

    field: Field
    version: Version
    cases: tuple[Case, ...]
    otherwise: int


class Entrance(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Where the judging of packets begins. `own`: those to an address of this machine."""

    version: Version
    transport: Transport
    own: bool
    target: int


class Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One policy, for the kernel. `left_out` counts what comes up only because the tree would be too large."""

    revision: str
    capture: Capture
    steps: tuple[Step, ...]
    outcomes: tuple[Outcome, ...]
    entrances: tuple[Entrance, ...]
    left_out: int = 0


class Element(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One opening: peers from `first` to `last`, both included, reach `port` at `address`; None is any of ours.

    Addresses in their usual text, all of one version; `0.0.0.0` and `::` as `address` stand for themselves only.
    """

    transport: Transport
    first: str
    last: str
    address: str | None
    port: int
