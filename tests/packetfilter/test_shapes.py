"""What the kernel can see of a rule."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from doorward.packetfilter.intervals import Interval, common, whole
from doorward.packetfilter.shapes import disguises, ground, shape
from doorward.policy.address import forms
from doorward.policy.guard import METADATA_ADDRESSES, guard
from doorward.policy.model import Action, PortRange, Rule

NET = ip_network("198.51.100.0/24")
ROW = (Interval(int(NET.network_address), int(NET.broadcast_address)),)


def test_addresses_are_certain_and_names_are_not() -> None:
    found = shape(Rule("r", Action.ALLOW, to_networks=(NET,), to_names=("a.org",)), "tcp", 4)
    assert found is not None
    assert found.certain == ROW
    assert not common(found.maybe, ROW)
    assert sum(last - first + 1 for first, last in found.maybe) == 2**32 - 256


def test_users_and_hours_make_everything_uncertain() -> None:
    for more in ({"users": frozenset({"kim"})}, {"groups": frozenset({"g"})}, {"windows": ()}):
        found = shape(Rule("r", Action.DENY, to_networks=(NET,), **more), "tcp", 4)
        assert found is not None
        assert (found.certain, found.maybe) == ((), ROW)


def test_rules_about_something_else_have_no_shape() -> None:
    assert shape(Rule("r", Action.ALLOW, ports=(PortRange("udp", 1, 2),)), "tcp", 4) is None
    assert shape(Rule("r", Action.ALLOW, ports=(PortRange("tcp-in", 1, 2),)), "tcp", 4) is None
    assert shape(Rule("r", Action.ALLOW, sources=(NET,)), "tcp", 6) is None
    assert shape(Rule("r", Action.ALLOW, to_networks=(NET,)), "tcp", 6) is None
    assert shape(Rule("r", Action.ALLOW, to_networks=(NET,)), "tcp", 4, ground(4, own=False)) is None


@pytest.mark.parametrize("version", [4, 6])
def test_the_ground_is_what_the_guard_says(version: int) -> None:
    """At every edge, and on both sides of it."""
    found = ground(version, own=False)
    kind = type(ip_address("0.0.0.0" if version == 4 else "::"))
    for guarded, row in found.guarded:
        for first, last in row:
            for number in (first - 1, first, last, last + 1):
                if not 0 <= number <= whole(version).last or len(forms(kind(number))) > 1:
                    continue
                said = guard(kind(number))
                inside = any(a <= number <= b for a, b in row)
                assert inside == (said is not None and said.label == guarded.label), kind(number)
    assert all(
        any(a <= int(m) <= b for a, b in found.all) for m in METADATA_ADDRESSES if m.version == version
    )


def test_every_own_address_is_guarded() -> None:
    assert ground(4, own=True).all == (whole(4),)


def test_addresses_in_disguise_are_known_but_for_those_that_a_mask_finds() -> None:
    for text in ("2002:a00:1::", "64:ff9b::1", "64:ff9b:1::1", "::ffff:1.2.3.4", "::2", "2001:0:1::"):
        number = int(ip_address(text))
        assert common(disguises(6), (Interval(number, number),)), text
    for text in ("::", "::1", "2001:db8::1", "2001:1::"):
        number = int(ip_address(text))
        assert not common(disguises(6), (Interval(number, number),)), text
    assert disguises(4) == ()
