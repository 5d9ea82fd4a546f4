"""A gateway among hostile or broken neighbours: loops, floods, invented sources, fragments that never end."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from tests.end_to_end.conftest import StartFirewall
from tests.end_to_end.gateway_peers import ECHO
from tests.end_to_end.gateways import HEAD, RULE, Gateway, gateways
from tests.end_to_end.running import wait_for
from tests.end_to_end.wires import CLIENT, OUTSIDE, SERVER, why_not

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not())

ANYWHERE = '[[rule]]\nname = "anywhere"\naction = "allow"\nto = ["0.0.0.0/0", "::/0"]\nprotocols = ["any"]\n'
AWAY = {4: "198.51.100.1", 6: "2001:db8::1"}


@pytest.fixture
def gateway(start_firewall: StartFirewall) -> Iterator[Gateway]:
    with gateways(start_firewall) as found:
        found.serve()
        yield found


@pytest.mark.parametrize("kept", ["", 'keep_source = ["0.0.0.0/0", "::/0"]\n'], ids=["ours", "kept"])
@pytest.mark.parametrize("version", [4, 6])
def test_a_loop_ends_where_it_begins(gateway: Gateway, version: int, kept: str) -> None:
    """The way to that network leads by a machine that sends everything back."""
    network = f"{AWAY[version].removesuffix('1')}{'0/24' if version == 4 else '/64'}"
    gateway.wires.ip("gateway", "route", "add", network, "via", CLIENT[version])
    forwarding = "ipv4/ip_forward" if version == 4 else "ipv6/conf/all/forwarding"
    gateway.wires.run("client", "sh", "-c", f"echo 1 > /proc/sys/net/{forwarding}")
    policy = HEAD.replace("connect_timeout_s = 5", "connect_timeout_s = 1") + kept + ANYWHERE
    firewall = gateway.firewall(policy)
    assert gateway.ask("tcp", AWAY[version]) == "ConnectionResetError"
    gateway.ask("udp", AWAY[version], ECHO, "", "5", "0.3")
    assert gateway.ask("tcp", SERVER[version]) == (CLIENT if kept else OUTSIDE)[version]
    firewall.process.terminate()
    firewall.process.wait(10)
    to_away = [r for r in firewall.records() if r.address == AWAY[version]]
    assert sorted(r.transport for r in to_away) == ["tcp", "udp"], to_away


def test_a_flood_of_new_destinations_costs_its_own_client(gateway: Gateway) -> None:
    firewall = gateway.firewall(HEAD + RULE)
    gateway.peers("client", "flood", SERVER[4], "10000", "5000")
    started = time.monotonic()
    assert gateway.ask("udp", SERVER[6]) == OUTSIDE[6]
    assert gateway.ask("tcp", SERVER[4]) == OUTSIDE[4]
    assert time.monotonic() - started < 5
    assert firewall.sockets() < 50


def test_invented_sources_leave_room_for_everybody_else(gateway: Gateway) -> None:
    firewall = gateway.firewall(HEAD + RULE, descriptors_max=1024)
    gateway.peers("client", "invent", "10.1.0", SERVER[4], "3000")
    wait_for(lambda: firewall.sockets() > 200, "some are served")
    assert gateway.ask("tcp", SERVER[4]) == OUTSIDE[4]
    assert gateway.ask("tcp", SERVER[6]) == OUTSIDE[6]
    assert gateway.ask("udp", SERVER[6]) == OUTSIDE[6]
    assert firewall.sockets() < 512
    assert firewall.resident_bytes() < 400 * 2**20


def test_fragments_that_never_end_keep_nobody_out(gateway: Gateway) -> None:
    firewall = gateway.firewall(HEAD + RULE)
    gateway.peers("client", "fragment", CLIENT[4], SERVER[4], "2000")
    assert gateway.ask("tcp", SERVER[4]) == OUTSIDE[4]
    assert gateway.ask("udp", SERVER[4]) == OUTSIDE[4]
    assert len(firewall.wait_for_records(1)) == 1
