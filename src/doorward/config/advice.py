"""Doubts about a policy that is right in form: rules that can never match, names never used, an open door.

Only what is certain is said: a rule is called unreachable when one single earlier rule plainly covers it. Two
earlier rules that cover it together, or a name pattern against an address, are not looked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address
from typing import Final

from doorward.config.document import Document
from doorward.config.model import ListenAddress
from doorward.config.ports import EVERY_PORT
from doorward.config.problems import Report
from doorward.policy.model import INBOUND, Action, IPNetwork, PortRange, Rule
from doorward.policy.names import matches

COMPARISONS_MAX: Final = 300_000
"""Every rule is compared with all earlier ones, which takes part of a second for 700 rules; then it stops."""


_EVERY_OUTWARD_PORT: Final = tuple(ports for ports in EVERY_PORT if ports.transport not in INBOUND)


def advise(
    document: Document,
    listen: Sequence[ListenAddress],
    rules: Sequence[Rule],
    used: set[tuple[str, str]],
    report: Report,
) -> None:
    """Add warnings to `report`. Expects a document without errors."""
    _advise_on_unused(document, used, report)
    _advise_on_covered(rules, report)
    _advise_on_nameless_peers(rules, report)
    _advise_on_filters_of_denials(document, report)
    _advise_on_open_door(listen, rules, report)


def _advise_on_unused(document: Document, used: set[tuple[str, str]], report: Report) -> None:
    for kind, names in (
        ("networks", document.networks),
        ("domains", document.domains),
        ("schedules", document.schedules),
    ):
        for name in names:
            if (kind, name) not in used:
                report.warning((kind, name), "no rule uses it")


def _advise_on_covered(rules: Sequence[Rule], report: Report) -> None:
    comparisons = 0
    for index, rule in enumerate(rules):
        comparisons += index
        if comparisons > COMPARISONS_MAX:
            return
        for earlier in rules[:index]:
            if _covers(earlier, rule):
                report.warning(
                    ("rule", index),
                    f'it can never match: "{earlier.name}" on line {earlier.line} matches all of it first',
                )
                break


def _covers(earlier: Rule, later: Rule) -> bool:
    return (
        _destinations_cover(earlier, later)
        and _ports_cover(earlier, later)
        and _networks_cover(earlier.sources, later.sources)
        and _people_cover(earlier, later)
        and (earlier.windows is None or earlier.windows == later.windows)
        and (earlier.process is None or (later.process is not None and later.process <= earlier.process))
    )


def _destinations_cover(earlier: Rule, later: Rule) -> bool:
    if earlier.action is Action.ALLOW and not _opens_as_much(earlier, later):
        return False
    if earlier.to_networks is None and earlier.to_names is None:
        return True
    if later.to_networks is None and later.to_names is None:
        return False
    if later.to_networks is not None and not _networks_cover(earlier.to_networks or (), later.to_networks):
        return False
    return all(
        any(_pattern_covers(pattern, name) for pattern in earlier.to_names or ())
        for name in later.to_names or ()
    )


def _opens_as_much(earlier: Rule, later: Rule) -> bool:
    """Whether an allowing rule opens all guarded addresses that the later one names outright.

    Guarded addresses (loopback, metadata, …) pass by a rule that does not name them, so a wide rule leaves work
    to a later narrow one. Comparing the entries as they stand errs on the side of silence.
    """
    return set(later.to_networks or ()) <= set(earlier.to_networks or ()) and (
        "localhost" not in (later.to_names or ()) or "localhost" in (earlier.to_names or ())
    )


def _pattern_covers(pattern: str, other: str) -> bool:
    if other.startswith("*."):
        return pattern in (other, other[1:]) or (pattern[:1] in "*." and matches(pattern, other[2:]))
    if other.startswith("."):
        return pattern == other or (pattern[:1] in "*." and matches(pattern, other[1:]))
    return matches(pattern, other)


def _networks_cover(earlier: tuple[IPNetwork, ...] | None, later: tuple[IPNetwork, ...] | None) -> bool:
    if earlier is None:
        return True
    return later is not None and all(any(_inside(network, wide) for wide in earlier) for network in later)


def _inside(network: IPNetwork, wide: IPNetwork) -> bool:
    return (
        network.version == wide.version
        and network.prefixlen >= wide.prefixlen
        and network.network_address in wide
    )


def _ports_cover(earlier: Rule, later: Rule) -> bool:
    return all(
        any(
            wide.transport == ports.transport and wide.first <= ports.first and ports.last <= wide.last
            for wide in _reach(earlier)
        )
        for ports in _reach(later)
    )


def _reach(rule: Rule) -> tuple[PortRange, ...]:
    """The ports of a rule; "any" does not let it open a listening port."""
    if rule.ports is not None:
        return rule.ports
    return EVERY_PORT if rule.action is Action.DENY else _EVERY_OUTWARD_PORT


def _people_cover(earlier: Rule, later: Rule) -> bool:
    if earlier.users is None and earlier.groups is None:
        return True
    if later.users is None and later.groups is None:
        return False
    return (later.users or frozenset()) <= (earlier.users or frozenset()) and (
        later.groups or frozenset()
    ) <= (earlier.groups or frozenset())


def _advise_on_nameless_peers(rules: Sequence[Rule], report: Report) -> None:
    for index, rule in enumerate(rules):
        if rule.to_names is not None and rule.ports and all(p.transport in INBOUND for p in rule.ports):
            report.warning(
                ("rule", index, "to"),
                "peers that arrive are known by address alone; names in it never match one",
            )


def _advise_on_filters_of_denials(document: Document, report: Report) -> None:
    for index, table in enumerate(document.rule):
        if table.action == "deny" and table.filters:
            report.warning(("rule", index, "filters"), "what a rule denies reaches no filter")


def _advise_on_open_door(listen: Sequence[ListenAddress], rules: Sequence[Rule], report: Report) -> None:
    open_rule = next(
        (
            rule
            for rule in rules
            if rule.action is Action.ALLOW
            and rule.sources is None
            and rule.users is None
            and rule.groups is None
            and rule.process is None
        ),
        None,
    )
    for index, address in enumerate(listen):
        if open_rule and not ip_address(address.host).is_loopback:
            report.warning(
                ("listen", "proxy", index),
                f'everyone who reaches this address may use rule "{open_rule.name}" on line {open_rule.line}; '
                'give it "from" or "users"',
            )
