"""The table as libnftables takes it: one JSON document, one transaction, so that there is no moment without a table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import ip_address
from typing import Any, Final

from doorward.packetfilter.layout import Layout, Span
from doorward.packetfilter.model import FAMILY, OPEN, TABLE, Element
from doorward.packetfilter.words import Json

_IN: Final[Json] = {"family": FAMILY, "table": TABLE}
_ITSELF: Final[Json] = {"table": {"family": FAMILY, "name": TABLE}}
REMOVE: Final[Sequence[Json]] = ({"add": _ITSELF}, {"delete": _ITSELF})
"""Whatever table there was is gone, and nobody complains if there was none."""


def document(orders: Iterable[Json]) -> Json:
    """Several orders as one transaction."""
    return {"nftables": list(orders)}


def load(layout: Layout) -> list[Json]:
    """In place of whatever was there."""
    return [*REMOVE, {"add": _ITSELF}, *({"add": thing} for thing in _things(layout))]


def _things(layout: Layout) -> Iterable[Json]:
    for chain in layout.chains:
        hook: Json = {}
        if chain.hook is not None:
            of, where, priority, policy = chain.hook
            hook = {"type": of, "hook": where, "prio": priority, "policy": policy}
        yield {"chain": {**_IN, "name": chain.name, **hook}}
    for counter in layout.counters:
        yield {"counter": {**_IN, "name": counter.name, "comment": counter.comment}}
    for found in layout.sets:
        kind: Any = found.types[0] if len(found.types) == 1 else list(found.types)
        described: Json = {**_IN, "name": found.name, "type": kind}
        if found.flags:
            described["flags"] = list(found.flags)
        if found.elements:
            described["elem"] = [_span(span) for span in found.elements]
        yield {"set": described}
    for one in layout.maps:
        cases = [[_span(span), verdict.json] for span, verdict in one.cases]
        described = {**_IN, "name": one.name, "type": one.type, "map": "verdict", "flags": ["interval"]}
        yield {"map": {**described, "elem": cases}}
    for chain in layout.chains:
        for rule in chain.rules:
            yield {"rule": {**_IN, "chain": chain.name, "expr": [phrase.json for phrase in rule]}}


def open_elements(elements: Sequence[tuple[Element, float]], *, anew: bool = False) -> list[Json]:
    """Openings, each with the seconds that it has left.

    One that exists begins anew. Kernels before 6.12 keep the old timeout of an element that is added again; with
    `anew` it is taken out first, in the same transaction. That is a hundred times slower.
    """
    found: list[Json] = []
    for version, name in OPEN.items():
        of_version = [pair for pair in elements if _version(pair[0]) == version]
        if of_version:
            keys = [_key(element) for element, _ in of_version]
            timed = [
                {"elem": {"val": key, "timeout": max(1, round(left))}}
                for key, (_, left) in zip(keys, of_version, strict=True)
            ]
            found.append(_elements("add", name, timed))
            if anew:
                found += (_elements("delete", name, keys), _elements("add", name, timed))
    return found


def close_elements(elements: Sequence[Element]) -> list[Json]:
    """No opening any more, whether it was there or has run out."""
    found: list[Json] = []
    for version, name in OPEN.items():
        keys = [_key(element) for element in elements if _version(element) == version]
        if keys:
            found += (_elements("add", name, keys), _elements("delete", name, keys))
    return found


FLUSH: Final[Sequence[Json]] = tuple({"flush": {"set": {**_IN, "name": name}}} for name in OPEN.values())
"""No opening at all."""


def _elements(order: str, name: str, elements: list[Any]) -> Json:
    return {order: {"element": {**_IN, "name": name, "elem": elements}}}


def _version(element: Element) -> int:
    return ip_address(element.first).version


def _key(element: Element) -> Json:
    everywhere = {"prefix": {"addr": "0.0.0.0" if _version(element) == 4 else "::", "len": 0}}
    address: Any = everywhere if element.address is None else element.address
    return {"concat": [_span(Span(element.first, element.last)), element.transport, address, element.port]}


def _span(span: Span) -> Any:
    return span.first if span.first == span.last else {"range": [span.first, span.last]}
