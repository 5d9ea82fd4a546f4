"""Addresses that are held from one policy to the next, and lent to whoever serves there."""

from __future__ import annotations

import socket
from ipaddress import ip_address

import pytest

from doorward.api.errors import AddressInUse
from doorward.net.published import Held, unbound

HERE = ip_address("127.0.0.1")


def test_who_waits_is_taken_by_whoever_borrows_next() -> None:
    held = Held("tcp", HERE, 0)
    first = held.lend()
    with socket.create_connection(held.name) as client:
        first.close()
        second = held.lend()
        peer, name = second.accept()
        assert name == client.getsockname()
        assert not second.getblocking()
        peer.close()
        second.close()
    held.close()
    held.close()
    with socket.socket() as late, pytest.raises(ConnectionRefusedError):
        late.connect(held.name)


def test_datagrams_are_held_as_well() -> None:
    held = Held("udp", HERE, 0)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.sendto(b"x", held.name)
        lent = held.lend()
        assert lent.recv(10) == b"x"
        lent.close()
    held.close()


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_a_taken_address_is_refused_and_nothing_is_left(transport: str) -> None:
    held = Held(transport, HERE, 0)  # type: ignore[arg-type]  # one of the two
    with pytest.raises(AddressInUse, match="Address already in use"):
        Held(transport, HERE, held.name[1])  # type: ignore[arg-type]  # one of the two
    held.close()
    Held(transport, HERE, held.name[1]).close()  # type: ignore[arg-type]  # one of the two


def test_an_address_that_is_not_ours_is_refused() -> None:
    with pytest.raises(AddressInUse, match="Cannot assign"):
        Held("tcp", ip_address("192.0.2.7"), 0)


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_what_is_bound_already_is_taken_over(transport: str) -> None:
    sock = unbound(transport, str(HERE))  # type: ignore[arg-type]  # one of the two
    sock.bind((str(HERE), 0))
    held = Held(transport, HERE, 0, sock=sock)  # type: ignore[arg-type]  # one of the two
    assert held.name == sock.getsockname()
    held.close()
    assert sock.fileno() < 0


def test_both_families_fit_on_one_port() -> None:
    six = Held("tcp", ip_address("::"), 0)
    Held("tcp", ip_address("0.0.0.0"), six.name[1]).close()
    six.close()
