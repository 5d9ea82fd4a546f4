"""Who is asked, and in which order."""

from __future__ import annotations

from tests.packetfilter.tables import CAPTURE, WEB

from doorward.packetfilter.entries import DEFAULT, DIRECTLY, Interest, View, entries_of
from doorward.packetfilter.model import Capture, Ports
from doorward.packetfilter.planting import UP
from doorward.packetfilter.shapes import ground
from doorward.policy.evaluation import Policy
from doorward.policy.model import Action, Rule
from doorward.policy.routes import Route, Routes

ROUTES = Routes(
    [Route(Rule("a", Action.ALLOW), ("direct",)), Route(Rule("b", Action.ALLOW), ("corp", "direct"))]
)


def said(view: View, capture: Capture = CAPTURE) -> list[tuple[str, str, str | None]]:
    found = entries_of(view, capture, Policy([WEB], "r"), ROUTES, [Interest(None)])
    return [(entry.kind, entry.says.action, entry.says.rule) for entry in found]


def test_rules_then_the_default_then_routes_and_filters() -> None:
    assert said(View(4, "tcp", False, None)) == [
        ("rule", "allow", "web"),
        ("rule", DEFAULT.action, None),
        ("route", DIRECTLY.action, None),
        ("route", UP.action, None),
        ("filter", UP.action, None),
    ]


def test_ports_that_come_up_are_first_and_the_guard_is_last() -> None:
    capture = Capture(networks=("10.0.0.0/8",), tcp_port=1, udp_port=1, up=(Ports("tcp", 53, 53),))
    found = said(View(4, "tcp", False, ground(4, own=False)), capture)
    assert found[0] == ("rule", "up", None)
    assert found[1][:2] == ("rule", "deny"), "no rule here names a guarded address"
    assert found[1][2] is not None
    assert said(View(4, "udp", False, None), capture)[0] == ("rule", "deny", None)


def test_nobody_relays_what_is_for_this_machine() -> None:
    assert {kind for kind, _, _ in said(View(4, "tcp", True, ground(4, own=True)))} == {"rule"}
