"""The addresses are nobody's, and the port is one that ordinary programs cannot take."""

from __future__ import annotations

import ipaddress

from doorward.capture.addresses import OWN, PORT


def test_the_addresses_are_of_blocks_that_are_never_routed() -> None:
    assert ipaddress.ip_address(OWN[4]) in ipaddress.ip_network("192.0.0.0/24")
    assert ipaddress.ip_address(OWN[6]) in ipaddress.ip_network("fd00::/8")


def test_the_port_needs_a_right_that_the_program_has_not() -> None:
    assert 0 < PORT < 1024
