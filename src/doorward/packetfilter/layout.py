"""The table as nft has it: counters, sets, maps, chains and rules, in no language yet. `text` and `orders` write it."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple, TypeAlias

from doorward.packetfilter.words import Phrase


class CounterDef(NamedTuple):
    """`comment` is what people call it."""

    name: str
    comment: str = ""


class Span(NamedTuple):
    """Values of a set or map, both ends included, as they are written."""

    first: str | int
    last: str | int


class SetDef(NamedTuple):
    """A set; its types, one for each part of a concatenation."""

    name: str
    types: tuple[str, ...]
    flags: tuple[str, ...] = ()
    elements: tuple[Span, ...] = ()


class MapDef(NamedTuple):
    """A map from intervals to verdicts."""

    name: str
    type: str
    cases: tuple[tuple[Span, Phrase], ...]


class Hook(NamedTuple):
    """Where packets enter a chain, and what becomes of those that leave it at the end."""

    kind: str
    hook: str
    priority: int
    policy: str


class ChainDef(NamedTuple):
    """A chain and its rules."""

    name: str
    rules: tuple[tuple[Phrase, ...], ...]
    hook: Hook | None = None


class Layout(NamedTuple):
    """All of it."""

    counters: tuple[CounterDef, ...]
    sets: tuple[SetDef, ...]
    maps: tuple[MapDef, ...]
    chains: tuple[ChainDef, ...]


Version: TypeAlias = int
_KIND = {4: IPv4Address, 6: IPv6Address}


def addresses(version: Version, first: int, last: int) -> Span:
    """A range of addresses."""
    kind = _KIND[version]
    return Span(str(kind(first)), str(kind(last)))
