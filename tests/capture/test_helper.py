"""The helper: what it holds, what it answers, and that it ends."""

from __future__ import annotations

import os
import select
import socket
import time
from pathlib import Path

import pytest
from tests.capture.inside import NOBODY, launched, needs_namespaces

from doorward.capture import passing
from doorward.capture.helper import own_resolvers
from doorward.capture.launch import Launch
from doorward.capture.sockets import Place


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("nameserver 127.0.0.53\noptions edns0\n", ["127.0.0.53"]),
        ("nameserver 10.0.0.1\nnameserver ::1\nnameserver 127.0.0.1\nnameserver ::1\n", ["::1", "127.0.0.1"]),
        ("nameserver 10.0.0.1\n", []),
        ("# nameserver 127.0.0.53\nsearch example\n", ["127.0.0.1"]),
        ("", ["127.0.0.1"]),
        ("nameserver\nnameserver fe80::1%eth0\nnameserver \xff\n", []),
    ],
)
def test_nameservers_on_loopback_are_found(tmp_path: Path, text: str, found: list[str]) -> None:
    path = tmp_path / "resolv.conf"
    path.write_bytes(text.encode("latin-1"))
    assert own_resolvers(path) == found


def test_a_machine_without_resolver_configuration_asks_itself(tmp_path: Path) -> None:
    assert own_resolvers(tmp_path / "none") == ["127.0.0.1"]


def asked(launch: Launch, text: str) -> tuple[str, list[int]]:
    passing.send(launch.channel, text)
    assert select.select([launch.channel], [], [], 5)[0]
    return passing.receive(launch.channel)


@needs_namespaces
def test_it_hands_out_sockets_that_answer_from_anywhere() -> None:
    with launched() as (launch, inside):
        for sock in launch.sockets().values():
            sock.close()
        for version in (4, 6):
            place = str(Place("udp", NOBODY[version], 53))
            text, descriptors = asked(launch, place)
            assert text == place
            with (
                socket.socket(fileno=descriptors[0]) as answering,
                inside.socket(version, socket.SOCK_DGRAM) as udp,
            ):
                udp.connect((NOBODY[version], 53))
                answering.sendto(b"an answer", udp.getsockname())
                assert udp.recv(100) == b"an answer"


@needs_namespaces
@pytest.mark.parametrize("text", ["nonsense", "udp,no address,5", "udp,1.2.3.4,99999", "tcp,1.2.3.4,5,6"])
def test_what_it_cannot_give_is_said_and_the_next_one_is_given(text: str) -> None:
    with launched() as (launch, _):
        for sock in launch.sockets().values():
            sock.close()
        said, descriptors = asked(launch, text)
        assert said.endswith(" failed")
        assert not descriptors
        _, descriptors = asked(launch, "udp,198.51.100.7,5353")
        os.close(descriptors[0])


@needs_namespaces
def test_it_holds_nothing_and_ends_with_the_launcher() -> None:
    reading, writing = os.pipe()
    launch = Launch()
    helper = launch._helper
    try:
        for sock in launch.sockets().values():
            sock.close()
        os.close(writing)
        assert os.read(reading, 1) == b""  # nobody else has its other end
    finally:
        os.close(reading)
        launch.close()
    deadline = time.monotonic() + 5
    while Path(f"/proc/{helper}").exists():
        assert time.monotonic() < deadline
