"""The packet filter: every expression as the kernel takes it, and what becomes of packets when nobody catches them."""

from __future__ import annotations

import hashlib
import socket

import pytest
from tests.capture.inside import FAMILY, NOBODY, launched, needs_namespaces, own_address, unserved

from doorward.capture import rules
from doorward.capture.addresses import OWN, PORT
from doorward.capture.netlink import ACK


def test_the_table_is_one_batch_of_which_every_message_is_acknowledged() -> None:
    messages = rules.table()
    assert [messages[0].kind, messages[-1].kind] == [0x10, 0x11]
    assert all(message.flags & ACK for message in messages[1:-1])
    assert [message.kind for message in messages[1:-1]] == [0xA00, 0xA03] + [0xA06] * 10


def test_a_rule_is_written_as_nft_writes_it() -> None:
    # `meta l4proto tcp reject with tcp reset`, as `nft --debug=netlink,mnl` shows it.
    body = rules.table()[-3].body
    assert b"meta\0" in body
    assert b"reject\0" in body
    assert body.startswith(b"\1\0\0\0")


def test_the_table_changes_only_on_purpose() -> None:
    """What the kernel is told; tried with the kernel below. Look at the rules before you change this number."""
    told = b"".join(message.body for message in rules.table())
    assert hashlib.sha256(told).hexdigest()[:16] == "89225b5a921ef1ba"


@needs_namespaces
@pytest.mark.parametrize("version", [4, 6])
def test_without_the_firewall_everything_is_refused_at_once(version: int) -> None:
    with launched() as (launch, inside):
        unserved(launch)
        with inside.socket(version) as tcp, pytest.raises(ConnectionRefusedError):
            tcp.connect((NOBODY[version], 80))
        with inside.socket(version, socket.SOCK_DGRAM) as udp:
            udp.connect((NOBODY[version], 53))
            udp.send(b"anybody?")
            with pytest.raises(ConnectionRefusedError):
                udp.recv(1)


@needs_namespaces
def test_a_server_of_the_programs_own_is_not_reached_by_a_strangers_address() -> None:
    with launched() as (launch, inside):
        unserved(launch)
        with inside.socket() as server, inside.socket() as client:
            server.bind(("0.0.0.0", 0))
            server.listen()
            with pytest.raises(ConnectionRefusedError):
                client.connect((NOBODY[4], server.getsockname()[1]))


@needs_namespaces
@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", OWN[4], "::1", OWN[6]])
def test_the_programs_own_loopback_is_its_own(host: str) -> None:
    version = 6 if ":" in host else 4
    with launched() as (launch, inside):
        caught = launch.sockets()
        with inside.socket(version) as server, inside.socket(version) as client:
            server.bind((host, 0))
            server.listen()
            client.connect(server.getsockname())
            accepted, _ = server.accept()
            with accepted:
                client.sendall(b"mine")
                assert accepted.recv(10) == b"mine"
        for sock in caught.values():
            sock.close()


@needs_namespaces
@pytest.mark.parametrize("version", [4, 6])
def test_everything_else_comes_to_us_with_its_destination(version: int) -> None:
    with launched() as (launch, inside):
        caught = launch.sockets()
        tcp = next(
            s for p, s in caught.items() if p.kind == "tcp" and p.host == OWN[version] and p.port == PORT
        )
        with inside.socket(version) as client:
            client.connect((NOBODY[version], 8080))
            tcp.settimeout(5)
            accepted, who = tcp.accept()
            with accepted:
                assert accepted.getsockname()[:2] == (NOBODY[version], 8080)
                assert who[0] == OWN[version]
        for sock in caught.values():
            sock.close()


@needs_namespaces
@pytest.mark.parametrize("version", [4, 6])
def test_without_the_rules_there_is_no_network_at_all(version: int) -> None:
    """Somebody who had every right inside has taken them away: what is left is a device that leads to itself."""
    with launched() as (launch, inside):
        caught = launch.sockets()
        inside.delete_table()
        for host in (NOBODY[version], own_address(version) or NOBODY[version]):
            with socket.socket(FAMILY[version]) as outside, inside.socket(version) as client:
                if host != NOBODY[version]:
                    outside.bind((host, 0))
                    outside.listen()
                with pytest.raises(ConnectionRefusedError):
                    client.connect((host, outside.getsockname()[1] or 80))
        for sock in caught.values():
            sock.close()
