"""A local end is taken before it is known what for; it is ours, or it is said that it is not."""

from __future__ import annotations

import socket

import pytest
from tests.net.wires import open_descriptors

from doorward.api import AddressInUse, BadArgument, Unreachable
from doorward.net.reservation import Reservation, bind_as_source


def test_what_is_taken_can_be_listened_on_or_given_back() -> None:
    before = open_descriptors()
    reservation = Reservation("127.0.0.1", 0)
    with reservation.take() as sock:
        assert not sock.getblocking()
        sock.listen()
        assert sock.getsockname() == reservation.name
        with pytest.raises(AddressInUse):
            Reservation(*reservation.name)
    reservation.close()
    Reservation(*reservation.name).close()
    assert open_descriptors() == before


def test_a_port_of_the_kernels_choice_is_ours_alone() -> None:
    taken = [Reservation("127.0.0.1", 0) for _ in range(50)]
    assert len({reservation.name for reservation in taken}) == 50
    for reservation in taken:
        reservation.close()


def test_several_may_connect_from_one_port_and_only_one_may_listen() -> None:
    first = Reservation("127.0.0.1", 0)
    second = Reservation(*first.name)
    with first.take() as one, second.take() as other:
        one.listen()
        with pytest.raises(OSError, match="in use"):
            other.listen()


def test_everywhere_is_both_families() -> None:
    reservation = Reservation("", 0)
    with reservation.take() as sock:
        sock.listen()
        port = reservation.name[1]
        for host in ("127.0.0.1", "::1"):
            socket.create_connection((host, port)).close()


def test_a_machine_without_ipv6_has_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    make = socket.socket

    def only_ipv4(family: int, kind: int) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(97, "Address family not supported by protocol")
        return make(family, kind)

    monkeypatch.setattr("doorward.net.reservation.socket.socket", only_ipv4)
    reservation = Reservation("", 0)
    assert reservation.name[0] == "0.0.0.0"
    reservation.close()


@pytest.mark.parametrize(
    ("address", "port", "kind"),
    [
        ("192.0.2.1", 0, AddressInUse),
        ("2001:db8::1", 0, AddressInUse),
        ("a name", 0, BadArgument),
        ("127.0.0.1", -1, BadArgument),
        ("127.0.0.1", 65_536, BadArgument),
    ],
)
def test_what_cannot_be_had(address: str, port: int, kind: type[Exception]) -> None:
    before = open_descriptors()
    with pytest.raises(kind):
        Reservation(address, port)
    assert open_descriptors() == before


@pytest.mark.parametrize("everywhere", [True, False])
def test_a_source_is_used_while_it_is_reserved(*, everywhere: bool) -> None:
    reservation = Reservation("" if everywhere else "127.0.0.1", 0)
    with socket.socket(socket.AF_INET) as sock, socket.create_server(("127.0.0.1", 0)) as server:
        bind_as_source(sock, reservation.name)
        sock.connect(server.getsockname())
        assert sock.getsockname() == ("127.0.0.1", reservation.name[1])
    reservation.close()


def test_a_source_of_the_other_family_leads_nowhere() -> None:
    with socket.socket(socket.AF_INET) as sock:
        with pytest.raises(Unreachable):
            bind_as_source(sock, ("::1", 0))
        with pytest.raises(AddressInUse):
            bind_as_source(sock, ("192.0.2.1", 0))


def test_one_may_be_of_a_socket_that_is_bound_already() -> None:
    bound = socket.create_server(("127.0.0.1", 0))
    reservation = Reservation("127.0.0.1", 0, sock=bound)
    assert reservation.name == bound.getsockname()
    assert reservation.take() is bound
    bound.close()
