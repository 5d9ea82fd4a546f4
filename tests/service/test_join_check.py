"""Whoever hands over something else than a program's own sockets is told so, and nothing of it stays open."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.capture.inside import Inside, launched, needs_namespaces
from tests.service.joining import wanted

from doorward.capture import passing
from doorward.capture.launch import Launch
from doorward.capture.sockets import Place
from doorward.service import join_check
from doorward.service.join_check import checked_peer, taken
from doorward.service.join_messages import BadPacket

pytestmark = needs_namespaces
TCP = Place("tcp", "192.0.0.8", 1)


class Handed:
    """What a launcher would hand over, and what a test puts in its place."""

    def __init__(self, launch: Launch, inside: Inside) -> None:
        self.sockets: dict[Place, socket.socket] = launch.sockets()
        self.channel = launch.channel
        self.inside = inside
        self.close = ExitStack()
        for sock in self.sockets.values():
            self.close.enter_context(sock)

    def replace(self, place: Place, sock: socket.socket) -> None:
        self.sockets[place] = self.close.enter_context(sock)

    def take(self) -> join_check.Given:
        """As the firewall would: the descriptors are copies."""
        numbers = [os.dup(sock.fileno()) for sock in (*self.sockets.values(), self.channel)]
        return taken(wanted(list(self.sockets)), numbers)

    def expect_refusal(self, why: str) -> None:
        before = _descriptors()
        with pytest.raises(BadPacket, match=why):
            self.take()
        assert _descriptors() == before


@pytest.fixture
def handed() -> Iterator[Handed]:
    with launched() as (launch, inside):
        made = Handed(launch, inside)
        with made.close:
            yield made


def _descriptors() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir()}


def test_a_programs_own_sockets_are_taken(handed: Handed) -> None:
    given = handed.take()
    assert set(given) == set(handed.sockets)
    assert all(not sock.getblocking() and not sock.get_inheritable() for sock in given.values())
    given.close()


def test_one_too_many_or_too_few_is_refused(handed: Handed) -> None:
    numbers = [os.dup(handed.channel.fileno())]
    with pytest.raises(BadPacket, match="1 descriptors for 2 places"):
        taken(wanted([TCP, Place("udp", TCP.host, 1)]), numbers)
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(numbers[0])


def test_a_file_is_no_socket(handed: Handed, tmp_path: Path) -> None:
    before = _descriptors()
    numbers = [os.dup(sock.fileno()) for sock in (*handed.sockets.values(), handed.channel)]
    file = os.open(tmp_path, os.O_RDONLY)
    os.close(numbers[1])
    numbers[1] = file
    with pytest.raises(BadPacket):
        taken(wanted(list(handed.sockets)), numbers)
    assert _descriptors() == before


def test_a_socket_of_our_own_network_is_refused(handed: Handed) -> None:
    handed.replace(TCP, socket.create_server(("127.0.0.1", 0)))
    handed.expect_refusal("not of one network")
    for place in [place for place in handed.sockets if place != TCP]:
        del handed.sockets[place]
    handed.expect_refusal("not of one network")


def test_sockets_of_two_programs_are_refused(handed: Handed) -> None:
    with launched() as (launch, _):
        others = launch.sockets()
        handed.replace(TCP, others.pop(TCP))
        for sock in others.values():
            sock.close()
        handed.expect_refusal("not of one network")


def test_one_that_listens_elsewhere_is_refused(handed: Handed) -> None:
    sock = handed.inside.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen()
    handed.replace(TCP, sock)
    handed.expect_refusal("bound elsewhere")


def test_one_that_does_not_listen_is_refused(handed: Handed) -> None:
    place = Place("tcp", "127.0.0.1", 4053)
    sock = handed.inside.socket()
    sock.bind(("127.0.0.1", 4053))
    handed.replace(place, sock)
    handed.expect_refusal("does not listen")


def test_a_connected_one_is_refused(handed: Handed) -> None:
    place = Place("udp", "127.0.0.1", 4053)
    sock = handed.inside.socket(kind=socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 4053))
    sock.connect(("127.0.0.1", 9))
    handed.replace(place, sock)
    handed.expect_refusal("connected")


def test_another_kind_is_refused(handed: Handed) -> None:
    handed.replace(TCP, handed.inside.socket(kind=socket.SOCK_DGRAM))
    handed.expect_refusal("another kind")


def test_one_that_does_not_catch_is_refused(handed: Handed) -> None:
    handed.sockets[TCP].setsockopt(socket.IPPROTO_IP, socket.IP_TRANSPARENT, 0)
    handed.expect_refusal("does not catch")


def test_without_a_listener_that_catches_there_is_nothing_to_serve(handed: Handed) -> None:
    for place in [place for place in handed.sockets if place.kind == "tcp"]:
        del handed.sockets[place]
    handed.expect_refusal("nothing catches")


def test_the_channel_must_be_one(handed: Handed) -> None:
    kept = handed.channel
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as unconnected, socket.socket() as other:
        for wrong in (unconnected, other):
            handed.channel = wrong
            with pytest.raises(BadPacket):
                handed.take()
    handed.channel = kept


def _accepted(connect: socket.socket, path: Path) -> socket.socket:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        listening.bind(str(path))
        listening.listen()
        listening.settimeout(5)
        thread = threading.Thread(target=connect.connect, args=(str(path),))
        thread.start()
        accepted, _ = listening.accept()
        thread.join()
        return accepted


def test_our_own_user_may_hand_over_and_another_may_not(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = passing.pair()
    with ours, theirs:
        assert checked_peer(ours) == os.getuid()
        monkeypatch.setattr(os, "getuid", lambda: 4711)
        monkeypatch.setattr(join_check, "_ROOT", 4712)
        with pytest.raises(BadPacket, match="another user"):
            checked_peer(ours)


def test_who_is_captured_already_cannot_leave_by_this_way(tmp_path: Path, handed: Handed) -> None:
    inside = handed.inside.unix_socket()
    with inside, _accepted(inside, tmp_path / "join") as accepted:
        with pytest.raises(BadPacket, match="in another network"):
            checked_peer(accepted)
