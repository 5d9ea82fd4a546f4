"""A gateway whose packet filter is what the policy compiles to: what is settled in the kernel, and what comes up."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest
from tests.end_to_end.conftest import StartFirewall
from tests.end_to_end.gateway_peers import ECHO
from tests.end_to_end.gateways import HEAD, RULE, Gateway, gateways
from tests.end_to_end.wires import CLIENT, GATEWAY, OTHER, OUTSIDE, SERVER, why_not

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not())

NAMED = '[[rule]]\nname = "by name"\naction = "allow"\nto = ["web.test"]\nprotocols = ["tcp/9000"]\n'
DENIED = (
    f'[[rule]]\nname = "not there"\naction = "deny"\nto = ["{OTHER[4]}", "{OTHER[6]}"]\nprotocols = ["any"]\n'
)


@pytest.fixture
def gateway(start_firewall: StartFirewall) -> Iterator[Gateway]:
    with gateways(start_firewall) as found:
        found.serve()
        yield found


def counted(gateway: Gateway, what: str) -> int:
    """How many flows a counter with this comment has seen."""
    said = gateway.wires.run("gateway", "nft", "list", "counters", "table", "inet", "doorward").stdout
    found = re.findall(r'comment "([^"]*)"\s+packets (\d+)', said)
    return sum(int(packets) for comment, packets in found if comment == what)


def test_what_addresses_settle_never_comes_up(gateway: Gateway) -> None:
    firewall = gateway.firewall(HEAD + DENIED + RULE, compiled=True)
    for version in (4, 6):
        for kind in ("tcp", "udp"):
            assert gateway.ask(kind, SERVER[version]) == OUTSIDE[version]
            assert gateway.ask(kind, OTHER[version]) in (
                "ConnectionRefusedError",
                "PermissionError",
                "OSError",
            )
    assert counted(gateway, "allow: the server") == 4
    assert counted(gateway, "deny: not there") >= 4
    assert firewall.records() == []


def test_what_a_name_could_decide_comes_up(gateway: Gateway) -> None:
    firewall = gateway.firewall(HEAD + NAMED + RULE, compiled=True)
    for version in (4, 6):
        assert gateway.ask("tcp", SERVER[version]) == OUTSIDE[version]
        assert gateway.ask("udp", SERVER[version]) == OUTSIDE[version]
        assert gateway.ask("tcp", OTHER[version]) == "ConnectionResetError"
    assert counted(gateway, "allow: the server") == 2
    records = firewall.wait_for_records(4)
    assert {(r.transport, r.address, r.action) for r in records} == {
        ("tcp", host[version], action)
        for version in (4, 6)
        for host, action in ((SERVER, "allow"), (OTHER, "deny"))
    }


@pytest.mark.parametrize("method", ["tproxy", "redirect"])
def test_datagrams_and_streams_that_come_up_are_carried(gateway: Gateway, method: str) -> None:
    everything = NAMED.replace('"tcp/9000"', '"any"')
    gateway.firewall(f'{HEAD}method = "{method}"\n{everything}{RULE}', compiled=True)
    for version in (4, 6):
        assert gateway.ask("tcp", SERVER[version]) == OUTSIDE[version]
        assert gateway.ask("udp", SERVER[version], ECHO, "", "4000") == OUTSIDE[version]
        assert gateway.peers("client", "exchange", SERVER[version]) == "all"


@pytest.mark.parametrize("comes_up", [False, True])
@pytest.mark.parametrize("method", ["tproxy", "redirect"])
def test_the_source_is_kept_by_kernel_and_service_alike(
    gateway: Gateway, comes_up: bool, method: str
) -> None:
    named = NAMED.replace('"tcp/9000"', '"any"') if comes_up else ""
    gateway.firewall(
        f'{HEAD}method = "{method}"\nkeep_source = ["0.0.0.0/0", "::/0"]\n{named}{RULE}', compiled=True
    )
    for version in (4, 6):
        for kind in ("tcp", "udp"):
            assert gateway.ask(kind, SERVER[version]) == CLIENT[version]
        assert gateway.peers("client", "exchange", SERVER[version]) == "all"


def test_the_source_is_kept_for_some_destinations(gateway: Gateway) -> None:
    rule = RULE.replace('"]\nprotocols', f'", "{OTHER[4]}", "{OTHER[6]}"]\nprotocols')
    gateway.firewall(f'{HEAD}keep_source = ["{SERVER[4]}", "{SERVER[6]}"]\n{rule}', compiled=True)
    for version in (4, 6):
        for kind in ("tcp", "udp"):
            assert gateway.ask(kind, SERVER[version]) == CLIENT[version]
            assert gateway.ask(kind, OTHER[version]) == OUTSIDE[version]


def test_without_the_service_what_is_settled_goes_on_and_the_rest_is_closed(gateway: Gateway) -> None:
    policy = HEAD + NAMED + RULE
    firewall = gateway.firewall(policy, compiled=True)
    firewall.kill()
    for version in (4, 6):
        assert gateway.ask("tcp", SERVER[version]) in ("ConnectionRefusedError", "ConnectionResetError")
        assert gateway.ask("tcp", OTHER[version]) in ("ConnectionRefusedError", "ConnectionResetError")
        assert gateway.ask("udp", SERVER[version]) == OUTSIDE[version]
    again = gateway.firewall(policy, compiled=True)
    for version in (4, 6):
        assert gateway.ask("tcp", SERVER[version]) == OUTSIDE[version]
    assert again.wait_for_records(2)


def test_the_gateways_own_ports_are_closed_to_both_sides(gateway: Gateway) -> None:
    gateway.firewall(HEAD + NAMED + RULE, compiled=True)
    for host in (*GATEWAY.values(), *OUTSIDE.values()):
        assert gateway.ask("tcp", host, 1081) in ("ConnectionRefusedError", "ConnectionResetError")
    for host, port in ((OUTSIDE[4], "1081"), (CLIENT[4], "9000")):
        assert gateway.peers("server", "ask", "tcp", host, port, "", "5", "0.3") == "TimeoutError"


def test_names_can_be_asked_of_the_gateway_itself(gateway: Gateway, program: Callable[[str], str]) -> None:
    gateway.firewall(HEAD + NAMED + RULE, compiled=True, files={"/etc/hosts": "10.2.0.2 web.test\n"})
    dig = [program("dig"), "+tries=1", "+time=5", "+short", "web.test"]
    for host in GATEWAY.values():
        for way in ("+notcp", "+tcp"):
            assert gateway.wires.run("client", *dig, way, f"@{host}").stdout == "10.2.0.2\n"


def test_a_spoofed_source_is_dropped(gateway: Gateway) -> None:
    gateway.wires.ip("client", "addr", "add", "10.9.0.2/32", "dev", "eth0")
    gateway.wires.ip("client", "addr", "add", "10.2.0.9/32", "dev", "eth0")
    firewall = gateway.firewall(HEAD + NAMED + RULE, compiled=True)
    for source in ("10.9.0.2", "10.2.0.9"):
        assert gateway.ask("udp", SERVER[4], ECHO, source, "5", "0.2") == "TimeoutError"
    assert counted(gateway, "from an address that is not where it came from") == 2
    assert firewall.records() == []
