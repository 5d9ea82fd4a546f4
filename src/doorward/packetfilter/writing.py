"""From a table to its layout: the policy's tree as maps and chains, between the chains that are always there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from doorward.packetfilter import skeleton
from doorward.packetfilter.layout import ChainDef, CounterDef, Layout, MapDef, Span, addresses
from doorward.packetfilter.model import Outcome, Step, Table
from doorward.packetfilter.nflog import PREFIX
from doorward.packetfilter.words import (
    IS_NEW,
    RETURN,
    Phrase,
    at_most,
    between,
    counted,
    ct,
    field,
    goto,
    logged,
    look_up,
    match,
    meta,
    set_mark,
)

COMMENT_BYTES_MAX: Final = 120  # the kernel's tools cut at 128
LOGGED_PER_SECOND_MAX: Final = 200
RULES_MAX: Final = 3
"""Cases of a step that become rules; more become a map. The kernel finds maps by going through all of them."""

_IP: Final = {4: "ip", 6: "ip6"}
_TYPES: Final = {4: "ipv4_addr", 6: "ipv6_addr"}


def lay_out(table: Table) -> Layout:
    """The whole of it."""
    capture = table.capture
    settled = [(place, outcome) for place, outcome in enumerate(table.outcomes) if outcome.action != "up"]
    return Layout(
        counters=(
            *skeleton.COUNTERS,
            *(CounterDef(f"o{place}", _comment(outcome)) for place, outcome in settled),
        ),
        sets=skeleton.sets(capture),
        maps=tuple(
            _map(table, place, step) for place, step in enumerate(table.steps) if len(step.cases) > RULES_MAX
        ),
        chains=(
            *skeleton.chains(capture),
            _entrance(table, "judge", own=False),
            _entrance(table, "judge-own", own=True),
            *(
                ChainDef(f"s{place}", tuple(_step(table, place, step)))
                for place, step in enumerate(table.steps)
            ),
            *(ChainDef(f"o{place}", tuple(_outcome(table, place, outcome))) for place, outcome in settled),
        ),
    )


def _comment(outcome: Outcome) -> str:
    """What a rule is called, as it can stand between quotation marks."""
    said = f"{outcome.action}: {outcome.rule if outcome.rule is not None else outcome.reason}"
    shown = "".join("'" if c == '"' else c if c.isprintable() else "?" for c in said)
    return shown.encode(errors="replace")[:COMMENT_BYTES_MAX].decode(errors="ignore")


def _entrance(table: Table, name: str, *, own: bool) -> ChainDef:
    rules: list[tuple[Phrase, ...]] = []
    rules += skeleton.isatap(goto("refuse") if own else RETURN)
    for entrance in table.entrances:
        if entrance.own is own:
            where = match(meta("nfproto"), f"ipv{entrance.version}")
            rules.append(
                (where, match(meta("l4proto"), entrance.transport), _verdict(table, entrance.target))
            )
    return ChainDef(name, tuple(rules))


def _verdict(table: Table, target: int) -> Phrase:
    if target < 0:
        return goto(f"s{-1 - target}")
    return RETURN if table.outcomes[target].action == "up" else goto(f"o{target}")


def _map(table: Table, place: int, step: Step) -> MapDef:
    kind = "inet_service" if step.field == "port" else _TYPES[step.version]
    return MapDef(
        f"m{place}",
        kind,
        tuple((_span(step, case.first, case.last), _verdict(table, case.target)) for case in step.cases),
    )


def _span(step: Step, first: int, last: int) -> Span:
    return Span(first, last) if step.field == "port" else addresses(step.version, first, last)


def _step(table: Table, place: int, step: Step) -> Iterator[tuple[Phrase, ...]]:
    for key in _keys(step):
        if len(step.cases) > RULES_MAX:
            yield *key[:-1], look_up(key[-1], f"m{place}")
        else:
            for case in step.cases:
                span = _span(step, case.first, case.last)
                yield *key[:-1], between(key[-1], *span), _verdict(table, case.target)
    yield (_verdict(table, step.otherwise),)


def _keys(step: Step) -> Sequence[tuple[Phrase, ...]]:
    """Where the value stands, after what tells that it stands there."""
    if step.field == "port":
        there = match(ct("direction"), "original"), field("th", "dport")
        back = match(ct("direction"), "reply"), field("th", "sport")
        return there, back
    end = "saddr" if step.field == "source" else "daddr"
    return ((ct(f"{_IP[step.version]} {end}", "original"),),)


def _outcome(table: Table, place: int, outcome: Outcome) -> Iterator[tuple[Phrase, ...]]:
    yield IS_NEW, counted(f"o{place}")
    group = table.capture.log_group
    if group is not None:
        yield IS_NEW, at_most(LOGGED_PER_SECOND_MAX), logged(f"{PREFIX} {table.revision} {place}", group)
    yield (set_mark(skeleton.allowed_mark(table.capture)) if outcome.action == "allow" else goto("refuse"),)
