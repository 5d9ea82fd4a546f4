"""Addresses and routes as messages; what they do is tried in test_rules.py."""

from __future__ import annotations

import ipaddress
import struct

import pytest

from doorward.capture import links
from doorward.capture.addresses import OWN
from doorward.capture.netlink import ACK


def test_lo_is_brought_up_and_nothing_else_about_it_is_changed() -> None:
    message = links.lo_up()
    assert struct.unpack("=BxHiII", message.body) == (0, 0, 1, 1, 1)
    assert message.flags & ACK


@pytest.mark.parametrize("version", [4, 6])
def test_lo_has_one_address_with_nothing_around_it(version: int) -> None:
    message = links.address(version)
    own = ipaddress.ip_address(OWN[version]).packed
    _, prefix, flags, scope, index = struct.unpack_from("=BBBBI", message.body)
    assert (prefix, flags, scope, index) == (len(own) * 8, 2, 0, 1)
    assert message.body.count(own) == 2


@pytest.mark.parametrize("version", [4, 6])
def test_every_address_is_local(version: int) -> None:
    message = links.route(version)
    fields = struct.unpack_from("=BBBBBBBBI", message.body)
    assert fields[1:] == (0, 0, 0, 255, 3, 254, 2, 0)
    assert message.body.endswith(ipaddress.ip_address(OWN[version]).packed)
