"""Which way a connection goes: routes in their order, the first full match decides, and without one it is direct.

A route's words mean exactly what they mean in a rule that allows, so it is tested by the same code. The guard has no
say here: a destination has passed it before anybody asks for the way. What is unknown never matches: a route for
certain users passes over a client that has not said who it is.

Pure: no clock, no input or output. What an upstream is, and whether it can be reached, is not known here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from doorward.policy.address import forms
from doorward.policy.candidates import UNSURE, Candidates
from doorward.policy.evaluation import Prepared
from doorward.policy.model import INBOUND, UNKNOWN, Action, Inputs, IPNetwork, Rule
from doorward.policy.networks import AddressSet

DIRECT: Final = "direct"
"""The way without an upstream; no upstream can have this name."""


class Route(NamedTuple):
    """What it is for, as a rule that allows, and the names of the ways to try, in order; DIRECT may be the last."""

    rule: Rule
    via: tuple[str, ...]


class Chosen(NamedTuple):
    """The ways to try, in order, and the name of the route that says so; None if no route matched."""

    via: tuple[str, ...]
    route: str | None


NO_ROUTE: Final = Chosen((DIRECT,), None)


class Routes:
    """The routes of one revision. Nothing of it changes once it is built."""

    def __init__(self, routes: Sequence[Route] = ()) -> None:
        self.routes: tuple[Route, ...] = tuple(routes)
        rules = [route.rule for route in self.routes]
        assert all(rule.action is Action.ALLOW for rule in rules), "a route is matched as a rule that allows"
        self._candidates = Candidates(rules)
        sets: dict[tuple[IPNetwork, ...], AddressSet] = {}
        self._prepared = tuple(Prepared(rule, sets) for rule in rules)
        self._chosen = (*(Chosen(route.via, route.rule.name) for route in self.routes), NO_ROUTE)

    def __bool__(self) -> bool:
        return bool(self.routes)

    def choose(self, inputs: Inputs) -> Chosen:
        """The way for what was allowed; never an exception."""
        return self._chosen[self._first(inputs)]

    def choose_inbound(self, inputs: Inputs) -> Chosen:
        """The way of a peer that is waited for: of the first route for it, or for the same port outward.

        So a route for everything means these, too, and one for `tcp-in` before it takes them out again.
        """
        assert inputs.transport in INBOUND
        outward = inputs._replace(transport="tcp" if inputs.transport == "tcp-in" else "udp")
        return self._chosen[min(self._first(inputs), self._first(outward))]

    def _first(self, inputs: Inputs) -> int:
        """The place of the first route that matches, one behind the last if none does."""
        client_forms = forms(inputs.client)
        address_forms = UNKNOWN if inputs.address is UNKNOWN else forms(inputs.address)
        for code in self._candidates.of(inputs, client_forms, address_forms):
            prepared = self._prepared[code >> 1]
            if code & UNSURE or not prepared.admits(inputs, client_forms):
                continue
            if prepared.names_users:
                user = inputs.user
                if not isinstance(user, str) or not prepared.lists(user, inputs.groups):
                    continue
            return code >> 1
        return len(self.routes)
