"""TFTP through the firewall with real servers and real clients: rules allow requests, and nothing else."""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.end_to_end.conftest import StartFirewall, starting_firewalls
from tests.end_to_end.ftp import Program
from tests.end_to_end.running import wait_for
from tests.end_to_end.tftp import (
    CONTENT,
    POLICY,
    Address,
    Site,
    TftpServer,
    hpa_server,
    site_of,
    tftpy_client,
    tftpy_server,
    udp_socket,
)

DATA = b"\0\3\0\1"
ACK_1 = b"\0\4\0\1"


@pytest.fixture(scope="module", params=["in.tftpd", "tftpy"])
def server(
    request: pytest.FixtureRequest, program: Program, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TftpServer]:
    home = tmp_path_factory.mktemp("tftp")
    server = tftpy_server(home) if request.param == "tftpy" else hpa_server(home, program("in.tftpd"))
    yield server
    server.end()


@pytest.fixture(scope="module")
def hpa(program: Program, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TftpServer]:
    server = hpa_server(tmp_path_factory.mktemp("tftp"), program("in.tftpd"))
    yield server
    server.end()


@pytest.fixture(scope="module")
def site(server: TftpServer) -> Iterator[Site]:
    with starting_firewalls() as start:
        yield site_of(start, ("127.0.0.1", server.port))


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """A server at whose port the test sits."""
    with udp_socket() as asked:
        yield asked


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("options", [{}, {"blksize": 1428, "tsize": 0}, {"blksize": 8192}])
def test_tftpy_downloads_and_uploads(
    site: Site, server: TftpServer, tmp_path: Path, options: dict[str, int]
) -> None:
    with tftpy_client(site.firewall, site.server, **options) as client:
        client.download("file", str(tmp_path / "down"))
        assert digest((tmp_path / "down").read_bytes()) == digest(CONTENT)
        content = os.urandom(300_000)
        (tmp_path / "up").write_bytes(content)
        client.upload("uploaded", str(tmp_path / "up"))
    # Servers acknowledge the last block before the file is closed.
    wait_for(lambda: digest((server.home / "uploaded").read_bytes()) == digest(content), "all is written")
    site.expect_nothing_left()


def test_a_servers_error_reaches_the_client(site: Site) -> None:
    with site.client() as client:
        client.asks("no such file")
        packet, (_, port) = client.hears()
        assert packet[:4] == b"\0\5\0\1"
        assert port != site.server[1]


def test_without_the_filter_the_answer_is_a_strangers(start_firewall: StartFirewall, hpa: TftpServer) -> None:
    policy = POLICY.format(port=hpa.port, settings="") + "filters.tftp = false\n"
    site = Site(start_firewall(policy), ("127.0.0.1", hpa.port))
    with site.client() as client:
        client.socket.settimeout(0.2)
        client.asks("file")
        with pytest.raises(TimeoutError):
            client.hears()
    [record] = site.firewall.wait_for_records(1, lambda record: record.operation == "udp")
    assert "from strangers" in str(record.detail)


def test_read_only(start_firewall: StartFirewall, hpa: TftpServer) -> None:
    site = site_of(start_firewall, ("127.0.0.1", hpa.port), "read_only = true")
    with site.client() as client:
        client.asks("written", writes=True)
        assert client.hears() == (b"\0\5\0\2Refused by the firewall: tftp_read_only\0", site.server)
        client.asks("file")
        [found] = client.downloads().values()
        assert digest(found) == digest(CONTENT)
    assert not (hpa.home / "written").exists()
    [record] = site.firewall.wait_for_records(1, lambda record: record.operation == "udp")
    assert record.filters is not None
    assert '["tftp","noted","tftp_read_only"]' in record.filters
    found_records = site.firewall.wait_for_records(2, lambda record: record.operation == "destination")
    by_reason = {record.reason: record for record in found_records}
    granted = by_reason["granted"]
    assert (granted.rule, granted.protocol, granted.parent) == ("tftp only", "tftp", record.connection)
    assert granted.bytes_received > len(CONTENT)
    assert by_reason["rule_allow"].port == hpa.port


def test_four_transfers_at_once_over_one_association(start_firewall: StartFirewall, hpa: TftpServer) -> None:
    site = site_of(start_firewall, ("127.0.0.1", hpa.port))
    contents = {f"file-{number}": os.urandom(200_000 + number) for number in range(4)}
    for name, content in contents.items():
        (hpa.home / name).write_bytes(content)
    with site.client() as client:
        for name in contents:
            client.asks(name)
        found = client.downloads(len(contents))
    assert sorted(map(digest, found.values())) == sorted(map(digest, contents.values()))
    site.expect_nothing_left()


def test_what_is_lost_is_sent_again(start_firewall: StartFirewall, hpa: TftpServer) -> None:
    site = site_of(start_firewall, ("127.0.0.1", hpa.port))
    with site.client() as client:
        client.asks("file")
        first, source = client.hears()
        assert client.hears() == (first, source)  # nobody has acknowledged it
        client.says(ACK_1, source)
        assert client.hears()[0][:4] == b"\0\3\0\2"
        client.says(b"\0\5\0\0enough\0", source)
        client.asks("file")
        [found] = [data for data in client.downloads().values() if data]
    assert digest(found) == digest(CONTENT)


def test_a_server_that_answers_from_another_address_is_a_stranger(
    start_firewall: StartFirewall, silent: socket.socket
) -> None:
    site = site_of(start_firewall, silent.getsockname())
    with site.client() as client, udp_socket("127.0.0.2") as elsewhere, udp_socket() as right:
        client.asks("file")
        _, ours = silent.recvfrom(512)
        elsewhere.sendto(DATA + b"wrong", ours)
        right.sendto(DATA + b"right", ours)
        assert client.hears() == (DATA + b"right", right.getsockname())
    [record] = site.firewall.wait_for_records(1, lambda record: record.operation == "udp")
    assert record.detail == "dropped: 1 from strangers"


def test_a_stranger_in_the_middle_of_a_transfer_is_not_heard(
    start_firewall: StartFirewall, silent: socket.socket
) -> None:
    site = site_of(start_firewall, silent.getsockname())
    with site.client() as client, udp_socket() as transfer, udp_socket() as stranger:
        client.asks("file")
        _, ours = silent.recvfrom(512)
        for number in range(1, 20):
            head = b"\0\3" + number.to_bytes(2, "big")
            if number > 1:
                stranger.sendto(head + b"lies", ours)
            transfer.sendto(head + b"truth", ours)
            packet, source = client.hears()
            assert (packet, source) == (head + b"truth", transfer.getsockname())
            client.says(b"\0\4" + head[2:], source)
            assert transfer.recvfrom(512) == (b"\0\4" + head[2:], ours)
    [record] = site.firewall.wait_for_records(1, lambda record: record.operation == "udp")
    assert record.detail == "dropped: 18 from strangers"


def test_the_client_cannot_speak_first_to_any_other_port(
    start_firewall: StartFirewall, silent: socket.socket
) -> None:
    site = site_of(start_firewall, silent.getsockname())
    with site.client() as client, udp_socket() as other:
        client.asks("file")
        silent.recvfrom(512)
        address: Address = other.getsockname()
        client.says(ACK_1, address)
        client.asks("another")
        silent.recvfrom(512)
        other.setblocking(False)
        with pytest.raises(BlockingIOError):
            other.recv(512)
    records = site.firewall.wait_for_records(2, lambda record: record.operation == "destination")
    assert {(r.port, r.action) for r in records} == {(site.server[1], "allow"), (address[1], "deny")}


def test_requests_that_are_none_do_not_reach_the_server(
    start_firewall: StartFirewall, silent: socket.socket
) -> None:
    site = site_of(start_firewall, silent.getsockname())
    hostile = [
        b"",
        b"\0",
        b"\0\1",
        b"\0\1file\0octet",
        b"\0\1\0octet\0",
        b"\0\1" + b"f" * 600 + b"\0octet\0",
        b"\xff" * 99,
    ]
    with site.client() as client:
        for packet in hostile:
            client.says(packet, site.server)
        client.asks("file")
        assert silent.recvfrom(512)[0] == b"\0\1file\0octet\0"
    [record] = site.firewall.wait_for_records(1, lambda record: record.operation == "udp")
    assert record.filters is not None
    assert '["tftp","noted","tftp_bad_packet"]' in record.filters
    assert '["tftp","noted","tftp_bad_request"]' in record.filters
