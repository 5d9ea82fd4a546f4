"""The judge: a policy's rules in order, the first full match decides, and without one the answer is no.

A field may still be unknown: the user before anybody asked, the address before a name was resolved. Unknown
never counts as a match; a rule that hangs on it stops the evaluation, and the answer says which field is
needed. What can be refused without asking for more is refused, so that a refused name is never looked up.

Pure: no clock, no input or output. Rules are found through `candidates`; `explanation` goes the plain way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

from doorward.policy.address import forms
from doorward.policy.candidates import UNSURE, Candidates
from doorward.policy.explanation import explain
from doorward.policy.guard import LOCALHOST, LOOPBACK, Guarded, guard
from doorward.policy.model import (
    INBOUND,
    UNKNOWN,
    Action,
    Decision,
    Inputs,
    IPAddress,
    IPNetwork,
    Rule,
    Tried,
)
from doorward.policy.networks import AddressSet
from doorward.policy.schedule import contains

RULE_ALLOW: Final = "rule_allow"
RULE_DENY: Final = "rule_deny"
DEFAULT_DENY: Final = "default_deny"
USER_NEEDED: Final = "user_needed"
NEEDS_USER: Final = "needs_user"
NEEDS_ADDRESS: Final = "needs_address"


class Policy:
    """The rules of one revision. Nothing of it changes once it is built, so it may be shared freely."""

    def __init__(self, rules: Sequence[Rule], revision: str) -> None:
        self.rules: tuple[Rule, ...] = tuple(rules)
        self.revision = revision
        self.names_users = any(rule.users is not None or rule.groups is not None for rule in self.rules)
        self._candidates = Candidates(self.rules)
        sets: dict[tuple[IPNetwork, ...], AddressSet] = {}
        self._prepared = tuple(Prepared(rule, sets) for rule in self.rules)

    def judge(self, inputs: Inputs) -> Decision:
        """Allow, deny, or needs a field; never an exception. An allowed address has passed the guard.

        With `user` None a rule that names users and would match otherwise refuses (`user_needed`), and no
        later rule is tried: who cannot say who he is does not get what others get further down.
        """
        address, user = inputs.address, inputs.user
        client_forms = forms(inputs.client)
        guarded: Guarded | None = None
        named: frozenset[int] = frozenset()
        if address is UNKNOWN:
            codes = self._candidates.of(inputs, client_forms, UNKNOWN)
        else:
            address_forms = forms(address)
            codes = self._candidates.of(inputs, client_forms, address_forms)
            guarded = guard(address, own=inputs.own)
            if guarded is not None:
                named = self._candidates.naming_outright(address_forms[0], guarded.block.prefixlen)
        for code in codes:
            prepared = self._prepared[code >> 1]
            if not prepared.admits(inputs, client_forms):
                continue
            if (
                guarded is not None
                and prepared.allows
                and not prepared.opens(code, named, inputs.host, guarded)
            ):
                continue
            if prepared.names_users:
                if user is UNKNOWN:
                    return self._needs(inputs, "user", prepared.rule)
                if user is None:
                    if code & UNSURE:
                        continue  # it refuses or does not match; the address cannot make it a yes
                    return self._answer(inputs, Action.DENY, USER_NEEDED, prepared.rule)
                if not prepared.lists(user, inputs.groups):
                    continue
            if not prepared.allows:
                if code & UNSURE:
                    continue
                return self._answer(inputs, Action.DENY, RULE_DENY, prepared.rule)
            if address is UNKNOWN:
                return self._needs(inputs, "address", prepared.rule)
            return self._answer(inputs, Action.ALLOW, RULE_ALLOW, prepared.rule)
        if guarded is not None:
            return Decision(Action.DENY, guarded.reason, inputs, self.revision, guarded.label)
        return Decision(Action.DENY, DEFAULT_DENY, inputs, self.revision)

    def explain(self, inputs: Inputs) -> tuple[Tried, ...]:
        """How every rule fared up to the one that decided; slow, for people."""
        return explain(self.rules, inputs)

    def _answer(self, inputs: Inputs, action: Action, reason: str, rule: Rule) -> Decision:
        return Decision(action, reason, inputs, self.revision, rule.name, rule.line)

    def _needs(self, inputs: Inputs, field: Literal["user", "address"], rule: Rule) -> Decision:
        reason = NEEDS_USER if field == "user" else NEEDS_ADDRESS
        return Decision(Action.NEEDS, reason, inputs, self.revision, rule.name, rule.line, field)


class Prepared:
    """One rule, made ready to be tested quickly; `to` is the business of the candidates."""

    __slots__ = ("_groups", "_ports", "_process", "_seldom", "_sources", "_users", "_windows", "allows",
                 "names_users", "rule")  # fmt: skip

    def __init__(self, rule: Rule, sets: dict[tuple[IPNetwork, ...], AddressSet]) -> None:
        """`sets` are shared among the rules: thousands of them may be for the same network."""
        self.rule = rule
        self.allows = rule.action is Action.ALLOW
        self.names_users = rule.users is not None or rule.groups is not None
        self._users = rule.users or frozenset()
        self._groups = rule.groups or frozenset()
        self._ports = rule.ports
        self._windows = rule.windows
        self._process = rule.process
        self._seldom = rule.windows is not None or rule.process is not None  # few rules have either
        self._sources: AddressSet | None = None
        if rule.sources is not None:
            known = sets.get(rule.sources)
            self._sources = (
                known if known is not None else sets.setdefault(rule.sources, AddressSet(rule.sources))
            )

    def admits(self, inputs: Inputs, client_forms: Sequence[IPAddress]) -> bool:
        """Protocol, from, when, process. What a client's address disguises meets deny rules only, as for `to`."""
        if self._ports is not None:
            transport, port = inputs.transport, inputs.port
            for wanted, first, last in self._ports:
                if first <= port <= last and wanted == transport:
                    break
            else:
                return False
        elif self.allows and inputs.transport in INBOUND:
            return False  # nobody opens a listening port by "any"
        if self._sources is not None:
            judged = client_forms[:1] if self.allows else client_forms
            if not any(form in self._sources for form in judged):
                return False
        return not self._seldom or self._admits_seldom(inputs)

    def _admits_seldom(self, inputs: Inputs) -> bool:
        """When and process. A client of whom no process is known is none of those listed."""
        if self._process is not None and self._process.isdisjoint(inputs.process):
            return False
        return self._windows is None or contains(self._windows, inputs.minute_of_week)

    def lists(self, user: str, groups: frozenset[str]) -> bool:
        return user in self._users or not self._groups.isdisjoint(groups)

    def opens(self, code: int, named: frozenset[int], host: str | None, guarded: Guarded) -> bool:
        """Whether it names the guarded address outright, or loopback as `localhost` that was asked for."""
        if code in named:
            return True
        return host == LOCALHOST and guarded.reason == LOOPBACK and LOCALHOST in (self.rule.to_names or ())
