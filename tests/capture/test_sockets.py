"""Sockets and the places they are named by."""

from __future__ import annotations

import socket

import pytest

from doorward.capture.addresses import OWN, PORT
from doorward.capture.sockets import Place, local, place_of


@pytest.mark.parametrize(
    "place", [Place("tcp", "192.0.0.8", 1), Place("udp", "2001:db8::1", 65535), Place("icmp", "::", 0)]
)
def test_a_place_is_the_same_after_it_was_written_down(place: Place) -> None:
    assert place_of(str(place)) == place


@pytest.mark.parametrize(
    "text",
    [
        "",
        "tcp,1.2.3.4",
        "sctp,1.2.3.4,5",
        "tcp,1.2.3.4,x",
        "tcp,1.2.3.4,65536",
        "udp,1.2.3.4,-1",
        "tcp,a,1,2",
    ],
)
def test_what_is_no_place_is_an_error(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  (several, none of which says more)
        place_of(text)


def test_a_place_knows_its_version_and_whether_it_catches() -> None:
    assert (Place("udp", "::1", 53).version, Place("udp", "127.0.0.53", 53).version) == (6, 4)
    assert Place("tcp", OWN[6], PORT).is_catching
    assert not Place("tcp", OWN[4], 53).is_catching
    assert not Place("udp", "127.0.0.53", 53).is_catching


def test_a_local_socket_listens_and_does_not_block() -> None:
    with local(Place("tcp", "127.0.0.1", 0)) as server:
        assert not server.getblocking()
        with socket.create_connection(server.getsockname(), 5):
            pass


def test_a_place_that_cannot_be_had_leaves_nothing_behind() -> None:
    with pytest.raises(OSError, match="assign"):
        local(Place("udp", "198.51.100.7", 5000))
