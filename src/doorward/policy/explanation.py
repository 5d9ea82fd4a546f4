"""How each rule fared, in words: the plain way through a policy, for `explain` and never for a connection.

It goes through the rules one after the other and shares no index with the judge, so that each checks the
other. The texts may hold what a client wrote; whoever shows them escapes them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final, Literal, NamedTuple

from doorward.policy.address import forms
from doorward.policy.guard import LOCALHOST, LOOPBACK, Guarded, guard
from doorward.policy.model import (
    PORT_MAX,
    UNKNOWN,
    Action,
    Inputs,
    IPAddress,
    IPNetwork,
    PortRange,
    Rule,
    Tried,
)
from doorward.policy.names import matches
from doorward.policy.schedule import DAYS, MINUTES_PER_DAY, contains

ITEMS_SHOWN_MAX: Final = 6

Standing = Literal["match", "no match", "needs"]


class _Test(NamedTuple):
    """One field of one rule: how it stands, and both sides in words."""

    field: str
    standing: Standing
    wanted: str
    got: str


def explain(rules: Sequence[Rule], inputs: Inputs) -> tuple[Tried, ...]:
    """Every rule up to the one that decided, and the guard if it had the last word.

    A rule that allows, while the address is unknown, is said to need the address even if it asks for none:
    the guard has to see it. A deny rule that needs the address does not stop, as it does not stop the judge.
    """
    guarded = None if inputs.address is UNKNOWN else guard(inputs.address, own=inputs.own)
    tried: list[Tried] = []
    for rule in rules:
        tested, decides = _try_rule(rule, inputs, guarded)
        tried.append(
            Tried(rule.name, rule.line, tested.standing, tested.field or None, tested.wanted, tested.got)
        )
        if decides:
            return tuple(tried)
    if guarded is not None:
        wanted = f"a rule that names {guarded.block} or a part of it"
        tried.append(Tried(guarded.label, 0, "match", "to", wanted, _destination(inputs)))
    return tuple(tried)


def _try_rule(rule: Rule, inputs: Inputs, guarded: Guarded | None) -> tuple[_Test, bool]:
    """The test that settled one rule, and whether the evaluation ends with it."""
    tests: tuple[Callable[[], _Test], ...] = (
        lambda: _test_protocol(rule, inputs),
        lambda: _test_from(rule, inputs),
        lambda: _test_when(rule, inputs),
        lambda: _test_process(rule, inputs),
        lambda: _test_to(rule, inputs, guarded),
        lambda: _test_users(rule, inputs),
    )
    waiting: dict[str, _Test] = {}
    for test in tests:
        result = test()
        if result.standing == "no match":
            return result, False
        if result.standing == "needs":
            waiting[result.field] = result
    if "users" in waiting and (inputs.user is UNKNOWN or "to" not in waiting):
        return waiting["users"], True
    if "to" in waiting:
        return waiting["to"], rule.action is Action.ALLOW and "users" not in waiting
    if rule.action is Action.ALLOW and inputs.address is UNKNOWN:
        return _Test("to", "needs", "the address, to see that it is not guarded", _destination(inputs)), True
    return _Test("", "match", "", ""), True


def _test_protocol(rule: Rule, inputs: Inputs) -> _Test:
    got = f"{inputs.transport}/{inputs.port}"
    fits = rule.covers(inputs.transport, inputs.port)
    if rule.ports is not None:
        return _Test("protocol", _standing(fits), _listed(map(_ports, rule.ports)), got)
    if not fits:
        return _Test("protocol", "no match", f'"{inputs.transport}" by name; "any" does not open it', got)
    return _Test("protocol", "match", "any", "")


def _ports(ports: PortRange) -> str:
    transport, first, last = ports
    if (first, last) == (0, PORT_MAX):
        return transport
    return f"{transport}/{first}" if first == last else f"{transport}/{first}-{last}"


def _test_from(rule: Rule, inputs: Inputs) -> _Test:
    if rule.sources is None:
        return _Test("from", "match", "any", "")
    fits = _inside(rule, inputs.client, rule.sources)
    return _Test("from", _standing(fits), _listed(map(str, rule.sources)), str(inputs.client))


def _test_when(rule: Rule, inputs: Inputs) -> _Test:
    if rule.windows is None:
        return _Test("when", "match", "any", "")
    wanted = _listed(f"{_moment(start)} to {_moment(end)}" for start, end in rule.windows)
    fits = contains(rule.windows, inputs.minute_of_week)
    return _Test("when", _standing(fits), wanted, _moment(inputs.minute_of_week))


def _test_process(rule: Rule, inputs: Inputs) -> _Test:
    if rule.process is None:
        return _Test("process", "match", "any", "")
    fits = not rule.process.isdisjoint(inputs.process)
    got = _listed(sorted(inputs.process)) if inputs.process else "a client that was not launched"
    return _Test("process", _standing(fits), _listed(sorted(rule.process)), got)


def _test_to(rule: Rule, inputs: Inputs, guarded: Guarded | None) -> _Test:
    if guarded is not None and rule.action is Action.ALLOW and not _names_outright(rule, inputs, guarded):
        wanted = f"{guarded.block} or a part of it, named outright ({guarded.label})"
        return _Test("to", "no match", wanted, _destination(inputs))
    if rule.to_names is None and rule.to_networks is None:
        return _Test("to", "match", "any", "")
    names, networks = rule.to_names or (), rule.to_networks or ()
    wanted, got = _listed([*names, *map(str, networks)]), _destination(inputs)
    if inputs.host is not None and any(matches(pattern, inputs.host) for pattern in names):
        return _Test("to", "match", wanted, got)
    if inputs.address is UNKNOWN:
        return _Test("to", "needs" if networks else "no match", wanted, got)
    return _Test("to", _standing(_inside(rule, inputs.address, networks)), wanted, got)


def _test_users(rule: Rule, inputs: Inputs) -> _Test:
    if rule.users is None and rule.groups is None:
        return _Test("users", "match", "any", "")
    users, groups = rule.users or frozenset(), rule.groups or frozenset()
    wanted = _listed([*sorted(users), *(f"group:{group}" for group in sorted(groups))])
    if inputs.user is UNKNOWN:
        return _Test("users", "needs", wanted, "not asked yet")
    if inputs.user is None:
        return _Test("users", "needs", wanted, "a client that does not say who it is")
    fits = inputs.user in users or not groups.isdisjoint(inputs.groups)
    got = _listed([inputs.user, *(f"group:{group}" for group in sorted(inputs.groups))])
    return _Test("users", _standing(fits), wanted, got)


def _inside(rule: Rule, address: IPAddress, networks: Sequence[IPNetwork]) -> bool:
    """A deny rule meets an address under every form, an allow rule only as itself."""
    itself, *disguised = forms(address)
    judged = [itself] if rule.action is Action.ALLOW else [itself, *disguised]
    return any(form in network for form in judged for network in networks)


def _names_outright(rule: Rule, inputs: Inputs, guarded: Guarded) -> bool:
    if inputs.address is UNKNOWN:
        return False
    if inputs.host == LOCALHOST and guarded.reason == LOOPBACK and LOCALHOST in (rule.to_names or ()):
        return True
    itself = forms(inputs.address)[0]
    return any(
        itself in network and network.prefixlen >= guarded.block.prefixlen
        for network in rule.to_networks or ()
    )


def _standing(fits: bool) -> Standing:
    return "match" if fits else "no match"


def _destination(inputs: Inputs) -> str:
    if inputs.address is UNKNOWN:
        return "a peer not known yet" if inputs.host is None else f"{inputs.host} (not resolved yet)"
    return str(inputs.address) if inputs.host is None else f"{inputs.host} ({inputs.address})"


def _moment(minute: int) -> str:
    day, minute = divmod(minute, MINUTES_PER_DAY)
    return f"{DAYS[day % 7]} {minute // 60:02}:{minute % 60:02}"


def _listed(items: Iterable[str]) -> str:
    items = list(items)
    shown = ", ".join(items[:ITEMS_SHOWN_MAX])
    more = len(items) - ITEMS_SHOWN_MAX
    return f"{shown} and {more} more" if more > 0 else shown or "nothing"
