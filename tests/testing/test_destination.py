"""A peer of a UDP mapping: what is attached for it, and what is attached for others."""

from __future__ import annotations

from typing import Any

import pytest
from tests.testing.conftest import MakeHarness
from tests.testing.plugins import Echo, Plugin, Upper

from doorward.api import BadArgument, UdpDestination

pytestmark = pytest.mark.anyio


async def test_for_itself_by_its_own_name_or_without_one(make_harness: MakeHarness) -> None:
    def attach(event: Any) -> None:
        event.connection.attach_data_filter(Upper())
        event.connection.attach_data_filter_with_destination(Echo(), ("198.51.100.1", 53))
        event.connection.attach_data_filter_with_destination(Upper(), ("198.51.100.2", 53))
        with pytest.raises(BadArgument):
            event.connection.attach_data_filter_with_destination(Upper(), ("nowhere", 53))

    harness = make_harness(host="dns.test", address="198.51.100.1", port=53, protocol="dns")
    plugin = Plugin(udp_destination=attach)
    asked = await harness.ask_udp_destination(plugin)
    destination: UdpDestination = plugin.events[0].destination
    assert (destination.host, plugin.events[0].protocol) == ("dns.test", "dns")
    assert [type(f) for f in asked.attached] == [Upper, Echo]
    assert {n: [type(f) for f in fs] for n, fs in asked.attached_for.items()} == {
        ("198.51.100.2", 53): [Upper]
    }
    assert asked.connection.external_socket_name == ("192.0.2.254", 40000)


async def test_a_denial_with_no_slug_for_a_reason_keeps_a_plain_one(make_harness: MakeHarness) -> None:
    plugin = Plugin(udp_destination=lambda event: event.destination.deny("No Such Slug"))
    assert (await make_harness().ask_udp_destination(plugin)).denied == "denied_by_filter"
