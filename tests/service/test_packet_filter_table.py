"""From a policy file to what the packet filter is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from doorward.config.loading import read_bytes
from doorward.config.model import Configuration
from doorward.packetfilter.model import Element, Ports
from doorward.service.filters import load_filters
from doorward.service.packet_filter_table import capture_of, interests_of, openings_of, table_of

HEAD = """
[listen]
proxy = ["127.0.0.1:1080"]
[transparent]
interfaces = ["lan0"]
networks = ["10.0.0.0/8"]
keep_source = ["10.2.0.0/16"]
"""


def configured(text: str = HEAD) -> Configuration:
    reading = read_bytes(text.encode(), Path("/nowhere/doorward.toml"))
    assert reading.configuration is not None, reading.problems
    return reading.configuration


def test_what_is_captured_is_what_the_file_says() -> None:
    configuration = configured()
    assert configuration.transparent is not None
    found = capture_of(configuration, configuration.transparent)
    assert (found.networks, found.interfaces, found.tcp_port) == (("10.0.0.0/8",), ("lan0",), 1081)
    assert (found.keep_source, found.settles) == (("10.2.0.0/16",), "everything")
    assert found.up == (Ports("tcp", 53, 53), Ports("udp", 53, 53))
    policy = configured(HEAD + 'dns = "policy"\nkernel = "nothing"\npacket_filter = "nft.sock"')
    assert policy.transparent is not None
    assert policy.transparent.packet_filter == Path("/nowhere/nft.sock")
    assert capture_of(policy, policy.transparent).up == ()
    assert capture_of(policy, policy.transparent).settles == "nothing"


@pytest.mark.parametrize(
    "limit",
    [
        "bytes_max_per_direction",
        "bytes_per_second",
        "connections_per_client_max",
        "connects_per_minute_per_client_max",
    ],
)
def test_nothing_goes_past_a_limit_that_only_the_service_keeps(limit: str) -> None:
    configuration = configured(f"{HEAD}[limits]\n{limit} = 5\n")
    assert configuration.transparent is not None
    assert capture_of(configuration, configuration.transparent).settles == "denials"


def test_filters_are_heard_on_their_ports() -> None:
    configuration = configured(HEAD + '[[filter]]\nname = "ftp"\nuse = "ftp"\n')
    loaded = load_filters(configuration.filters, configuration.protocols)
    (found,) = interests_of([one.entry for one in loaded])
    assert found.ports is not None
    assert any(ports.covers("tcp", 21) for ports in found.ports)


def test_without_a_gateway_there_is_no_table() -> None:
    assert table_of(configured('[listen]\nproxy = ["127.0.0.1:1080"]\n'), []) is None
    assert table_of(configured(), []) is not None


def test_the_proxy_and_published_servers_are_open_and_loopback_needs_nothing() -> None:
    published = (
        '[[publish]]\nname = "www"\nlisten = ["tcp/203.0.113.1:443"]\nto = ["10.0.0.9:443"]\n'
        'from = ["198.51.100.0/24"]\n'
    )
    found = openings_of(configured(HEAD + published), [("127.0.0.1", 1080), ("0.0.0.0", 1080)])
    assert found == {
        Element("tcp", "0.0.0.0", "255.255.255.255", None, 1080),
        Element("tcp", "198.51.100.0", "198.51.100.255", "203.0.113.1", 443),
    }
