"""Which filters hear of a connection. A protocol without one never enters a filter path.

The order of the policy file is the order of events. The answer depends on port, application protocol and the
way the client came in, and is worked out once for each combination.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Literal, NamedTuple

import msgspec
from msgspec import Struct

from doorward.api.events import EventKind
from doorward.api.filters import ANY, ApplicationFilter, ClientKind, Interest
from doorward.config.ports import parse_ports
from doorward.policy.model import TRANSPORTS, PortRange, Protocols, Transport

# Combinations remembered; more than this many would be somebody scanning ports.
REMEMBERED_MAX: Final = 4096


class Way(NamedTuple):
    """What decides which filters hear of a connection. `application` is what it is known to be, if anything is.

    A secondary connection has the application of the one that promised it, whatever its port.
    """

    transport: Transport
    port: int
    application: str | None
    kind: ClientKind
    is_secondary: bool = False


class FilterEntry(Struct, frozen=True, eq=False):
    """One filter in force. `ports` and `names` say what it is associated with; both None means everything.

    `rule_settings` are what the filter made of its settings for each rule that has some of its own, by the rule's
    name, and under None for all others; `off` names the rules whose traffic it leaves alone.
    """

    name: str
    application_filter: ApplicationFilter
    interest: Interest
    ports: tuple[PortRange, ...] | None = None
    names: frozenset[str] | None = None
    fail: Literal["closed", "open"] = "closed"
    rule_settings: Mapping[str | None, object] = msgspec.field(default_factory=dict)
    off: frozenset[str] = frozenset()

    def joins(self, way: Way) -> bool:
        """Whether a connection of this kind concerns the filter."""
        if way.kind not in self.interest.clients or not self.interest.scope.includes(way.is_secondary):
            return False
        if self.ports is None and self.names is None:
            return True
        if way.application is not None and self.names is not None and way.application in self.names:
            return True
        return self.ports is not None and any(r.covers(way.transport, way.port) for r in self.ports)

    def settings_of(self, rule: str | None) -> object:
        """What the filter made of its settings for the traffic of this rule."""
        return self.rule_settings.get(rule, self.rule_settings.get(None))


class Associations:
    """The filters of one policy, in its order."""

    def __init__(self, entries: Sequence[FilterEntry], protocols: Protocols) -> None:
        self.entries = tuple(entries)
        self.protocols = protocols
        self._remembered: dict[tuple[Way, str | None], tuple[FilterEntry, ...]] = {}
        self._names: dict[tuple[Transport, int], str | None] = {}
        self.resolving = tuple(entry for entry in self.entries if EventKind.RESOLVE in entry.interest.events)

    def of(self, way: Way, rule: str | None) -> tuple[FilterEntry, ...]:
        """The filters that hear of such a connection, which this rule has allowed."""
        if not self.entries:
            return ()
        key = (way, rule)
        found = self._remembered.get(key)
        if found is None:
            if len(self._remembered) >= REMEMBERED_MAX:
                self._remembered.clear()
            found = tuple(entry for entry in self.entries if rule not in entry.off and entry.joins(way))
            self._remembered[key] = found
        return found

    def protocol(self, transport: Transport, port: int, application: str | None) -> str | None:
        """The policy's name for a connection: what the front end knows, else the first protocol with this port."""
        if application is not None:
            return application
        key = (transport, port)
        if key not in self._names:
            if len(self._names) >= REMEMBERED_MAX:
                self._names.clear()
            self._names[key] = next(iter(self.protocols.names(transport, port)), None)
        return self._names[key]


def wanted(
    interest: Interest, protocols: Protocols
) -> tuple[tuple[PortRange, ...] | None, frozenset[str] | None]:
    """Ports and protocol names of an interest; (None, None) for any. Raises ValueError for what nobody can mean."""
    if ANY in interest.protocols:
        return None, None
    ranges: list[PortRange] = []
    names: set[str] = set()
    for word in interest.protocols:
        if "/" in word or word in TRANSPORTS:
            ranges.append(_ports(word))
        elif word in protocols.ports:
            ranges += protocols.ports[word]
            names.add(word)
        else:
            raise ValueError(f'unknown protocol "{word}"')
    return tuple(ranges), frozenset(names)


def _ports(word: str) -> PortRange:
    try:
        return parse_ports(word)
    except ValueError as error:
        raise ValueError(f'"{word}": {error}') from None
