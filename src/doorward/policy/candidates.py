"""Which rules are worth trying, in their order, without looking at the others.

Every rule lives in one home: the names and networks of its `to`, or else the few clients it is for, or else
its ports, or else the list of rules that are always tried. What comes out is a superset of the rules that
match, in order; of `to` it is exact, so that the judge need not test it again.

A candidate is a code: twice the rule's number, plus one if its `to` cannot be known before the name is
resolved.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from heapq import merge
from itertools import chain
from typing import Final

from doorward.policy.model import (
    TRANSPORTS,
    UNKNOWN,
    Action,
    Inputs,
    IPAddress,
    IPNetwork,
    PortRange,
    Rule,
    Transport,
    Unknown,
)
from doorward.policy.names import NameIndex
from doorward.policy.networks import NetworkIndex, PrefixIndex

UNSURE: Final = 1
SORT_AT_ONCE_MAX: Final = 64  # below this sorting beats merging lazily; measured

# A rule for clients no wider than this is found by its clients, any other by its ports.
_FEW_CLIENTS_PREFIX: Final = {4: 24, 6: 64}

Runs = list[list[int]]


class Candidates:
    """The index over one policy's rules."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        names: list[tuple[str, int]] = []
        networks: list[tuple[IPNetwork, int]] = []
        clients: list[tuple[IPNetwork, int]] = []
        ports: list[tuple[PortRange, int]] = []
        unsure_ports: list[tuple[PortRange, int]] = []
        self._always: list[int] = []
        self._unsure_always: list[int] = []
        for number, rule in enumerate(rules):
            code = 2 * number
            if rule.to_names is not None or rule.to_networks is not None:
                names += ((pattern, code) for pattern in rule.to_names or ())
                networks += ((network, code) for network in rule.to_networks or ())
                if rule.to_networks and _can_stop_while_unsure(rule):
                    _file_by_port(rule, code + UNSURE, unsure_ports, self._unsure_always)
            elif rule.sources and all(n.prefixlen >= _FEW_CLIENTS_PREFIX[n.version] for n in rule.sources):
                clients += ((network, code) for network in rule.sources)
            else:
                _file_by_port(rule, code, ports, self._always)
        denying = frozenset(2 * n for n, rule in enumerate(rules) if rule.action is Action.DENY)
        self._names = NameIndex(names)
        self._networks = _FormsIndex(networks, denying)
        self._clients = _FormsIndex(clients, denying)
        self._ports = _PortIndex(ports)
        self._unsure_ports = _PortIndex(unsure_ports)

    def of(
        self, inputs: Inputs, client_forms: Sequence[IPAddress], address_forms: Sequence[IPAddress] | Unknown
    ) -> Iterable[int]:
        """The codes to try, ascending; a rule may come twice, which changes nothing."""
        runs: Runs = [self._always] if self._always else []
        if inputs.host is not None and self._names:
            runs += self._names.runs(inputs.host)
        if self._ports:
            runs += self._ports.runs(inputs)
        if self._clients:
            runs += self._clients.runs(client_forms)
        if address_forms is UNKNOWN:
            runs.append(self._unsure_always)
            runs += self._unsure_ports.runs(inputs)
        elif self._networks:
            runs += self._networks.runs(address_forms)
        return _in_order(runs)

    def naming_outright(self, address: IPAddress, length_min: int) -> frozenset[int]:
        """The codes of the rules with a network of at least `length_min` bits around this very address."""
        return frozenset(chain.from_iterable(self._networks.narrow_runs(address, length_min)))


def _can_stop_while_unsure(rule: Rule) -> bool:
    """Whether a rule matters before the address is known.

    A deny rule that only waits for the address does not: it would refuse, and so does whatever comes instead
    of it. Leaving it out is what keeps a refused name from being looked up.
    """
    return rule.action is Action.ALLOW or rule.users is not None or rule.groups is not None


def _file_by_port(rule: Rule, code: int, ports: list[tuple[PortRange, int]], always: list[int]) -> None:
    if rule.ports is None:
        always.append(code)
    else:
        ports += ((port_range, code) for port_range in rule.ports)


def _in_order(runs: Runs) -> Iterable[int]:
    if len(runs) == 1:
        return runs[0]
    if sum(map(len, runs)) <= SORT_AT_ONCE_MAX:
        return sorted(chain.from_iterable(runs))
    return merge(*runs)


class _FormsIndex:
    """Networks of rules; what an address disguises meets deny rules only."""

    def __init__(self, pairs: list[tuple[IPNetwork, int]], denying: frozenset[int]) -> None:
        self._all = NetworkIndex(pairs)
        self._denying = NetworkIndex(pair for pair in pairs if pair[1] in denying)

    def __bool__(self) -> bool:
        return bool(self._all)

    def runs(self, forms: Sequence[IPAddress]) -> Runs:
        found = self._all.runs(forms[0])
        if len(forms) > 1:
            for form in forms[1:]:
                found += self._denying.runs(form)
        return found

    def narrow_runs(self, address: IPAddress, length_min: int) -> Runs:
        return self._all.runs(address, length_min)


class _PortIndex:
    """Port ranges of rules, each cut into aligned blocks and looked up like a network."""

    def __init__(self, pairs: list[tuple[PortRange, int]]) -> None:
        self._transports = {name: PrefixIndex(16, _entries(name, pairs)) for name in TRANSPORTS}
        self._any = any(map(bool, self._transports.values()))

    def __bool__(self) -> bool:
        return self._any

    def runs(self, inputs: Inputs) -> Runs:
        return self._transports[inputs.transport].runs(inputs.port)


def _entries(transport: Transport, pairs: list[tuple[PortRange, int]]) -> Iterator[tuple[int, int, int]]:
    for port_range, code in pairs:
        if port_range.transport == transport:
            for start, length in aligned_blocks(port_range.first, port_range.last):
                yield start, length, code


def aligned_blocks(first: int, last: int) -> Iterator[tuple[int, int]]:
    """A range of 16-bit numbers, both ends included, as the fewest (start, prefix length) blocks."""
    while first <= last:
        bits = min((first & -first).bit_length() - 1 if first else 16, (last - first + 1).bit_length() - 1)
        yield first, 16 - bits
        first += 1 << bits
