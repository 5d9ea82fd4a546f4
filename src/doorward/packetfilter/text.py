"""The table as nft reads and people do: `doorward nft show`. Loading this text gives the same table as the JSON."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from doorward.packetfilter.layout import ChainDef, Layout, MapDef, SetDef, Span
from doorward.packetfilter.model import FAMILY, TABLE


def show(layout: Layout) -> str:
    """The whole table, to be loaded with `nft -f`; it takes the place of the one that is there."""
    lines = [f"table {FAMILY} {TABLE}", f"delete table {FAMILY} {TABLE}", f"table {FAMILY} {TABLE} {{"]
    blocks = [
        *([f"counter {c.name} {{", f'\tcomment "{c.comment}"', "}"] for c in layout.counters),
        *(list(_set(found)) for found in layout.sets),
        *(list(_map(found)) for found in layout.maps),
        *(list(_chain(found)) for found in layout.chains),
    ]
    for number, block in enumerate(blocks):
        lines += [""] if number else []
        lines += (f"\t{line}" for line in block)
    return "\n".join([*lines, "}", ""])


def _set(found: SetDef) -> Iterator[str]:
    yield f"set {found.name} {{"
    yield f"\ttype {' . '.join(found.types)}"
    if found.flags:
        yield f"\tflags {','.join(found.flags)}"
    yield from _elements(map(_span, found.elements))
    yield "}"


def _map(found: MapDef) -> Iterator[str]:
    yield f"map {found.name} {{"
    yield f"\ttype {found.type} : verdict"
    yield "\tflags interval"
    yield from _elements(f"{_span(span)} : {verdict.text}" for span, verdict in found.cases)
    yield "}"


def _elements(elements: Iterable[str]) -> Iterator[str]:
    written = list(elements)
    if written:
        yield "\telements = {"
        yield from (f"\t\t{element}," for element in written)
        yield "\t}"


def _chain(found: ChainDef) -> Iterator[str]:
    yield f"chain {found.name} {{"
    if found.hook is not None:
        kind, hook, priority, policy = found.hook
        yield f"\ttype {kind} hook {hook} priority {priority}; policy {policy};"
    for rule in found.rules:
        yield "\t" + " ".join(phrase.text for phrase in rule)
    yield "}"


def _span(span: Span) -> str:
    return str(span.first) if span.first == span.last else f"{span.first}-{span.last}"
