from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doorward.config.document import ProtocolTable
from doorward.config.lines import Lines
from doorward.config.ports import BUILT_IN, parse_ports, read_ports, read_protocols
from doorward.config.problems import Report
from doorward.policy.model import PortRange

TRANSPORT = st.sampled_from(["tcp", "udp", "tcp-in", "udp-in"])


@given(TRANSPORT, st.integers(1, 65_535), st.integers(1, 65_535))
def test_a_range_of_ports_is_read_as_written(transport: str, one: int, other: int) -> None:
    first, last = sorted((one, other))
    assert parse_ports(f"{transport}/{first}-{last}") == (transport, first, last)
    assert parse_ports(f"{transport}/{first}") == (transport, first, first)
    assert parse_ports(transport) == (transport, 0, 65_535)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "443",
        "tcp/",
        "in",
        "tcp-out/1",
        "tcp-in/",
        "tcp-in/0",
        "tcp-in/65536",
        "udp-in/9-1",
        "tcp-in-in",
        "-in/1",
        "tcp/0",
        "tcp/65536",
        "tcp/9-1",
        "tcp/1-",
        "tcp/-1",
        "TCP/80",
        "tcp/80\n",
        "tcp/٣",
        "x/1",
    ],
)
def test_ports_that_do_not_exist_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"port|range"):
        parse_ports(text)


def test_a_protocol_of_the_policy_replaces_the_built_in_one_and_comes_first() -> None:
    report = Report("p", Lines(""))
    protocols = read_protocols({"https": ProtocolTable(ports=["tcp/8443"])}, report)
    assert protocols.ports["https"] == (PortRange("tcp", 8443, 8443),)
    assert next(iter(protocols.ports)) == "https"
    assert protocols.names("tcp", 443) == ()
    assert not report.failed


def test_any_is_every_port_and_stands_alone() -> None:
    report = Report("p", Lines(""))
    protocols = read_protocols({}, report)
    assert read_ports(["any"], ("x",), protocols, report) is None
    assert not report.failed
    read_ports(["https", "any"], ("x",), protocols, report)
    assert report.failed


def test_a_transport_alone_is_every_port_of_it_and_no_protocol() -> None:
    report = Report("p", Lines(""))
    protocols = read_protocols({}, report)
    assert read_ports(["ssh", "tcp-in", "udp"], ("x",), protocols, report) == (
        PortRange("tcp", 22, 22),
        PortRange("tcp-in", 0, 65_535),
        PortRange("udp", 0, 65_535),
    )
    assert protocols.names("tcp-in", 22) == ()
    assert not report.failed


@pytest.mark.parametrize("word", ["any", "tcp", "udp", "tcp-in", "udp-in"])
def test_a_word_for_every_port_cannot_be_defined(word: str) -> None:
    report = Report("p", Lines(""))
    read_protocols({word: ProtocolTable(ports=["tcp/8443"])}, report)
    assert "stands for every port and cannot be defined" in report.problems()[0].message


def test_the_usual_protocols_are_built_in() -> None:
    usual = {
        "http",
        "https",
        "ssh",
        "ftp",
        "smtp",
        "submission",
        "submissions",
        "imap",
        "imaps",
        "pop3",
        "pop3s",
    }
    usual |= {
        "dns",
        "ntp",
        "git",
        "postgres",
        "mysql",
        "redis",
        "mqtt",
        "ldap",
        "ldaps",
        "rdp",
        "telnet",
        "irc",
        "ircs",
    }
    assert usual <= set(BUILT_IN)
    assert BUILT_IN["dns"] == (PortRange("tcp", 53, 53), PortRange("udp", 53, 53))
