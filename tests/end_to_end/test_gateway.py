"""Machines behind a gateway, with real programs in network namespaces: nobody there has a proxy setting."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.end_to_end.conftest import StartFirewall
from tests.end_to_end.gateway_peers import ECHO, table
from tests.end_to_end.gateways import HEAD, RULE, Gateway, gateways
from tests.end_to_end.wires import CLIENT, GATEWAY, OTHER, OUTSIDE, SERVER, Where, why_not

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not())


@pytest.fixture
def gateway(start_firewall: StartFirewall) -> Iterator[Gateway]:
    """Wires, the gateway's kernel as the manual asks for it, and servers that answer."""
    with gateways(start_firewall) as found:
        found.serve()
        yield found


@pytest.mark.parametrize("method", ["tproxy", "redirect"])
def test_tcp_and_udp_reach_the_server_and_are_on_record(gateway: Gateway, method: str) -> None:
    firewall = gateway.firewall(HEAD + f'method = "{method}"\n' + RULE, method)
    for version in (4, 6):
        assert gateway.ask("tcp", SERVER[version]) == OUTSIDE[version]
        assert gateway.ask("udp", SERVER[version]) == OUTSIDE[version]
    records = firewall.wait_for_records(2, lambda r: r.transport == "tcp" and r.action == "allow")
    assert [(r.entry, r.client_address, r.address, r.port, r.rule, r.reason) for r in records] == [
        ("transparent", CLIENT[version], SERVER[version], ECHO, "the server", "rule_allow")
        for version in (4, 6)
    ]


def test_what_policy_refuses_is_refused_aloud(gateway: Gateway) -> None:
    firewall = gateway.firewall()
    for version in (4, 6):
        assert gateway.ask("tcp", OTHER[version]) == "ConnectionResetError"
        assert gateway.ask("udp", OTHER[version]) == "ConnectionRefusedError"
    records = firewall.wait_for_records(4, lambda r: r.action == "deny")
    assert {(r.transport, r.address, r.reason) for r in records} == {
        (transport, OTHER[version], "default_deny") for transport in ("tcp", "udp") for version in (4, 6)
    }


def test_a_server_that_refuses_is_a_reset(gateway: Gateway) -> None:
    firewall = gateway.firewall()
    assert gateway.ask("tcp", SERVER[4], 9) == "ConnectionResetError"
    (record,) = firewall.wait_for_records(1)
    assert (record.action, record.reason) == ("fail", "connection_refused")


def test_fragments_are_put_together_on_both_ways(gateway: Gateway) -> None:
    gateway.firewall()
    for version in (4, 6):
        assert gateway.ask("udp", SERVER[version], ECHO, "", "4000") == OUTSIDE[version]


def test_a_thousand_datagrams_come_back_unchanged(gateway: Gateway) -> None:
    firewall = gateway.firewall()
    for version in (4, 6):
        assert gateway.peers("client", "exchange", SERVER[version]) == "all"
    firewall.process.terminate()
    records = firewall.wait_for_records(2, lambda r: r.operation == "destination")
    assert [r.bytes_sent for r in records] == [1_200_000, 1_200_000]


@pytest.mark.parametrize("method", ["tproxy", "redirect"])
def test_the_source_is_kept_where_the_policy_asks_for_it(gateway: Gateway, method: str) -> None:
    to = [f"{host}/{bits}" for host, bits in ((SERVER[4], 32), (SERVER[6], 128))]
    rule = RULE.replace("]\nprotocols", f', "{OTHER[4]}", "{OTHER[6]}"]\nprotocols')
    gateway.firewall(f'{HEAD}method = "{method}"\nkeep_source = {to}\n{rule}'.replace("'", '"'), method)
    for version in (4, 6):
        for kind in ("tcp", "udp"):
            assert gateway.ask(kind, SERVER[version]) == CLIENT[version]
            assert gateway.ask(kind, OTHER[version]) == OUTSIDE[version]
        assert gateway.peers("client", "exchange", SERVER[version]) == "all"


def test_who_does_not_belong_there_is_not_served(gateway: Gateway) -> None:
    gateway.wires.ip("client", "addr", "add", "10.9.0.2/32", "dev", "eth0")
    gateway.wires.ip("gateway", "route", "add", "10.9.0.2/32", "dev", "inner")
    firewall = gateway.firewall()
    gateway.wires.nft("delete table inet doorward")
    gateway.wires.nft(
        table().replace("ip saddr != 10.1.0.0/24 drop", "accept", 1).replace('inner" accept', 'x" accept')
    )
    assert gateway.ask("tcp", SERVER[4], ECHO, "10.9.0.2") == "ConnectionResetError"
    assert gateway.ask("udp", SERVER[4], ECHO, "10.9.0.2", "5", "0.2") == "TimeoutError"
    records = firewall.wait_for_records(2)
    assert {(r.reason, r.client_address, r.host) for r in records} == {
        ("transparent_source", "10.9.0.2", SERVER[4])
    }


@pytest.mark.parametrize("method", ["tproxy", "redirect"])
def test_nobody_connects_to_the_port_itself(gateway: Gateway, method: str) -> None:
    """Not even where a rule allows the firewall's own addresses."""
    rule = RULE.replace('"10.2.0.2"', '"10.2.0.2", "10.1.0.1", "fd01::1", "10.2.0.1"')
    firewall = gateway.firewall(HEAD + f'method = "{method}"\n' + rule, method)
    ways: list[tuple[Where, str]] = [("client", host) for host in (*GATEWAY.values(), OUTSIDE[4])]
    for where, host in [*ways, ("server", OUTSIDE[4])]:
        assert gateway.peers(where, "ask", "tcp", host, "1081") == "ConnectionResetError"
    gateway.peers("client", "flood", GATEWAY[4], "1081", "1")
    records = firewall.wait_for_records(5)
    assert {r.reason for r in records} == {"transparent_port"}


def test_closed_when_the_service_is_killed_and_open_again_when_it_is_back(gateway: Gateway) -> None:
    firewall = gateway.firewall()
    assert gateway.ask("tcp", SERVER[4]) == OUTSIDE[4]
    firewall.kill()
    for version in (4, 6):
        assert gateway.ask("tcp", SERVER[version]) == "ConnectionRefusedError"
        assert gateway.ask("udp", SERVER[version]) == "ConnectionRefusedError"
    again = gateway.firewall()
    for version in (4, 6):
        assert gateway.ask("tcp", SERVER[version]) == OUTSIDE[version]
        assert gateway.ask("udp", SERVER[version]) == OUTSIDE[version]
    again.errors_expected = firewall.errors_expected = True


def test_a_reload_changes_who_is_served_and_loses_nobody(gateway: Gateway) -> None:
    firewall = gateway.firewall()
    assert gateway.ask("tcp", SERVER[4]) == OUTSIDE[4]
    kept = HEAD + f'keep_source = ["{SERVER[4]}"]\n' + RULE
    firewall.rewrite_policy(kept)
    firewall.hang_up()
    assert gateway.ask("tcp", SERVER[4]) == CLIENT[4]
    firewall.rewrite_policy(kept.replace('"10.1.0.0/24", ', ""))
    firewall.hang_up()
    assert gateway.ask("tcp", SERVER[4]) == "ConnectionResetError"
    assert gateway.ask("tcp", SERVER[6]) == OUTSIDE[6]
    firewall.rewrite_policy(HEAD + 'method = "redirect"\n' + RULE)
    gateway.load("redirect")
    firewall.hang_up()
    assert gateway.ask("tcp", SERVER[4]) == OUTSIDE[4]
    assert gateway.ask("udp", SERVER[4]) == OUTSIDE[4]
    firewall.rewrite_policy(RULE + '[listen]\nproxy = ["127.0.0.1:0"]\n')
    firewall.hang_up()
    assert gateway.ask("udp", SERVER[4]) == "ConnectionRefusedError"


def test_without_the_right_or_the_route_the_start_is_refused(gateway: Gateway, tmp_path: Path) -> None:
    policy = tmp_path / "doorward.toml"
    policy.write_text(HEAD + RULE)
    serve = [sys.executable, "-m", "doorward", "serve", "--policy", str(policy)]
    drop = ["setpriv", "--bounding-set", "-net_raw,-net_admin", "--inh-caps", "-all", "--"]
    done = gateway.wires.run("gateway", *drop, *serve, check=False)
    assert done.returncode == 1
    assert "CAP_NET_RAW or CAP_NET_ADMIN" in done.stderr
    gateway.wires.ip("gateway", "-6", "route", "flush", "table", "100")
    done = gateway.wires.run("gateway", *serve, check=False)
    assert done.returncode == 1
    assert "ip -6 route add local default dev lo table 100" in done.stderr
