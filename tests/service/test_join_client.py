"""The launcher's side, against firewalls that the test plays."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from tests.capture.inside import needs_namespaces
from tests.entry.world import short_home

from doorward.capture.launch import Launch
from doorward.service.join_client import JoinRefused, join, run_joined
from doorward.service.join_messages import Done, Joined, Told, Wanted, close_all, encode, join_path, receive

if TYPE_CHECKING:
    from doorward.service.run_refusals import Ran

pytestmark = needs_namespaces
TOLD = Told("deny", "tcp", "a.example", 443, "default_deny", None, is_name=False, count=3)


class Signals:
    """The program has ended as soon as it runs."""

    def __init__(self, launch: Launch) -> None:
        self._launch = launch

    def follow(self, process: int, ended: Callable[[int], None]) -> None:
        ended(os.waitpid(process, 0)[1])


@pytest.fixture
def home() -> Iterator[Path]:
    with short_home() as path:
        yield path


@contextmanager
def held(*words: str) -> Iterator[Launch]:
    launch = Launch()
    try:
        launch.hold(words)
        yield launch
    finally:
        launch.close()


@contextmanager
def firewall(home: Path, serve: Callable[[socket.socket], Any]) -> Iterator[Path]:
    """Serves one launcher in a thread."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        listening.bind(str(join_path(home / "control")))
        listening.listen()
        listening.settimeout(5)

        def run() -> None:
            sock, _ = listening.accept()
            with sock:
                sock.settimeout(5)
                serve(sock)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield home / "control"
        finally:
            thread.join()


def welcome(sock: socket.socket) -> Wanted:
    data, descriptors = receive(sock)
    close_all(descriptors)
    wanted = msgspec.json.decode(data, type=Wanted)
    assert len(descriptors) == len(wanted.places) + 1
    sock.send(encode(Joined(True, settle_s=5.0)))
    return wanted


def ran(control: Path, launch: Launch, lost: list[int]) -> Ran:
    sock, settle_s = join(control, launch, ["sh", "-c", "exit 4"], log_command=False)
    signals: Any = Signals(launch)
    with sock:
        return asyncio.run(run_joined(sock, settle_s, launch, signals, lambda: lost.append(1)))


def test_what_was_refused_is_heard_to_the_end(home: Path) -> None:
    def serve(sock: socket.socket) -> None:
        assert welcome(sock).words == ["sh", "-c", "exit 4"]
        receive(sock)
        for message in (TOLD, Done(2)):
            sock.send(encode(message))

    lost: list[int] = []
    with held("sh", "-c", "exit 4") as launch, firewall(home, serve) as control:
        found = ran(control, launch, lost)
    assert found.status == 4
    assert found.refusals is not None
    assert (list(found.refusals.counts.values()), found.refusals.more, lost) == ([3], 2, [])


@pytest.mark.parametrize("last", [b"", b"{}", b"nonsense", b"[]", b"7"])
def test_a_firewall_that_does_not_say_it_all_has_said_nothing(home: Path, last: bytes) -> None:
    def serve(sock: socket.socket) -> None:
        welcome(sock)
        receive(sock)
        sock.send(encode(TOLD))
        if last:
            sock.send(last)

    lost: list[int] = []
    with held("sh", "-c", "exit 4") as launch, firewall(home, serve) as control:
        assert ran(control, launch, lost) == (4, None, None, False, None)
    assert lost == [1]


def test_who_is_refused_is_told_why_and_keeps_nothing(home: Path) -> None:
    with (
        held("sh") as launch,
        firewall(home, lambda sock: sock.send(encode(Joined(False, "for no reason")))) as control,
    ):
        with pytest.raises(JoinRefused, match="does not take it: for no reason"):
            join(control, launch, ["sh"], log_command=False)


def test_a_firewall_that_ends_meanwhile_is_none(home: Path) -> None:
    with held("sh") as launch, firewall(home, lambda sock: None) as control:
        with pytest.raises(JoinRefused, match="cannot join"):
            join(control, launch, ["sh"], log_command=False)


def test_where_nobody_listens_there_is_none(home: Path) -> None:
    with held("sh") as launch, pytest.raises(JoinRefused, match="no doorward is running"):
        join(home / "control", launch, ["sh"], log_command=False)


def test_a_command_line_that_is_too_long_is_not_run(home: Path) -> None:
    with held("sh") as launch, pytest.raises(JoinRefused, match="longer than"):
        join(home / "control", launch, ["x" * 200_000], log_command=False)


def test_a_no_that_comes_before_the_question_is_heard(home: Path) -> None:
    with held("sh") as launch, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        listening.bind(str(join_path(home / "control")))
        listening.listen()

        class Early(socket.socket):
            def connect(self, address: Any) -> None:
                super().connect(address)
                sock, _ = listening.accept()
                sock.send(encode(Joined(False, "all are here")))
                sock.close()

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(socket, "socket", Early)
            with pytest.raises(JoinRefused, match="all are here"):
                join(home / "control", launch, ["sh"], log_command=False)
