"""Which filters hear of a connection. A protocol without one never enters a filter path.

The order of the policy file is the order of events. The answer depends on port, application protocol and the
way the client came in, and is worked out once for each combination.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from doorward.api.events import EventKind
from doorward.api.filters import ANY, ApplicationFilter, ClientKind, Interest
from doorward.config.ports import parse_ports
from doorward.policy.model import PortRange, Protocols

# Combinations remembered; more than this many would be somebody scanning ports.
REMEMBERED_MAX: Final = 4096


@dataclass(frozen=True, slots=True, eq=False)
class FilterEntry:
    """One filter in force. `ports` and `names` say what it is associated with; both None means everything."""

    name: str
    application_filter: ApplicationFilter
    interest: Interest
    ports: tuple[PortRange, ...] | None = None
    names: frozenset[str] | None = None
    fail: Literal["closed", "open"] = "closed"

    def joins(self, port: int, application: str | None, kind: ClientKind) -> bool:
        """Whether a connection of this kind concerns the filter."""
        if kind not in self.interest.clients:
            return False
        if self.ports is None and self.names is None:
            return True
        if application is not None and self.names is not None and application in self.names:
            return True
        return self.ports is not None and any(r.covers("tcp", port) for r in self.ports)


class Associations:
    """The filters of one policy, in its order."""

    def __init__(self, entries: Sequence[FilterEntry], protocols: Protocols) -> None:
        self.entries = tuple(entries)
        self._protocols = protocols
        self._remembered: dict[tuple[int, str | None, ClientKind], tuple[FilterEntry, ...]] = {}
        self._names: dict[int, str | None] = {}

    def of(self, port: int, application: str | None, kind: ClientKind) -> tuple[FilterEntry, ...]:
        """The filters that hear of such a connection. `application` is what the front end knows it to be."""
        if not self.entries:
            return ()
        key = (port, application, kind)
        found = self._remembered.get(key)
        if found is None:
            if len(self._remembered) >= REMEMBERED_MAX:
                self._remembered.clear()
            found = tuple(entry for entry in self.entries if entry.joins(port, application, kind))
            self._remembered[key] = found
        return found

    def protocol(self, port: int, application: str | None) -> str | None:
        """The policy's name for a connection: what the front end knows, else the first protocol with this port."""
        if application is not None:
            return application
        if port not in self._names:
            if len(self._names) >= REMEMBERED_MAX:
                self._names.clear()
            self._names[port] = next(iter(self._protocols.names("tcp", port)), None)
        return self._names[port]


def wanted(
    interest: Interest, protocols: Protocols
) -> tuple[tuple[PortRange, ...] | None, frozenset[str] | None]:
    """Ports and protocol names of an interest; (None, None) for any. Raises ValueError for what nobody can mean."""
    if ANY in interest.protocols:
        return None, None
    ranges: list[PortRange] = []
    names: set[str] = set()
    for word in interest.protocols:
        if "/" in word:
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


def wants_established(entry: FilterEntry) -> bool:
    """Whether the filter asked to hear that the outer leg stands."""
    return EventKind.ESTABLISHED in entry.interest.events
