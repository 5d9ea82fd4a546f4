"""A launch from its beginning to its end, and what stands in its way."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest
from tests.capture.inside import launched, needs_namespaces

from doorward.capture import helper, passing
from doorward.capture import launch as launching
from doorward.capture.launch import CannotCapture, Launch


@needs_namespaces
def test_nothing_is_left_of_a_launch() -> None:
    before = _descriptors()
    for _ in range(3):
        with launched() as (launch, _):
            for sock in launch.sockets().values():
                sock.close()
            launch.hold(["true"]).abandon()
    assert _descriptors() == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


@needs_namespaces
def test_it_gives_every_socket_that_is_needed() -> None:
    with launched() as (launch, _):
        caught = launch.sockets()
        kinds = {(place.kind, place.version) for place in caught if place.is_catching or place.kind == "icmp"}
        assert kinds >= {("tcp", 4), ("udp", 4), ("icmp", 4)}
        for sock in caught.values():
            assert not sock.getblocking()
            sock.close()


@needs_namespaces
def test_who_is_in_the_namespace_is_seen() -> None:
    launch = Launch()
    try:
        for sock in launch.sockets().values():
            sock.close()
        assert not launch.has_others()
        program = launch.hold([sys.executable, "-c", "input()"])
        reading, writing = os.pipe()
        saved = os.dup(0)
        os.dup2(reading, 0)
        program.abandon()
        program = launch.hold([sys.executable, "-c", "input()"])
        os.dup2(saved, 0)
        program.release()
        assert launch.has_others()
        for fd in (reading, writing, saved):
            os.close(fd)
        os.waitpid(program.process, 0)
        assert not launch.has_others()
    finally:
        launch.close()


def started_as(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A helper that says this, and ends."""

    def start() -> tuple[int, socket.socket]:
        ours, its = passing.pair()
        for word in words:
            passing.send(its, word)
        its.close()
        process = os.fork()
        if not process:
            os._exit(0)
        return process, ours

    monkeypatch.setattr(helper, "start", start)


def test_what_the_helper_says_is_what_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    started_as(["failed user namespaces are switched off"], monkeypatch)
    with pytest.raises(CannotCapture, match=r"^user namespaces are switched off$"):
        Launch()


@pytest.mark.parametrize("words", [[], ["ready tcp,1.2.3.4,5"], ["nonsense"]])
def test_a_helper_that_ends_too_early_is_told(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    started_as(words, monkeypatch)
    with pytest.raises(CannotCapture, match="ended before it was ready"):
        Launch()


def test_a_helper_that_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[socket.socket] = []

    def start() -> tuple[int, socket.socket]:
        ours, its = passing.pair()
        held.append(its)
        process = os.fork()
        if not process:
            os._exit(0)
        return process, ours

    monkeypatch.setattr(helper, "start", start)
    monkeypatch.setattr(launching, "_TIMEOUT_S", 0.05)
    with pytest.raises(CannotCapture, match="does not answer"):
        Launch()
    held[0].close()


def test_without_processes_there_is_no_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    def start() -> tuple[int, socket.socket]:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(helper, "start", start)
    with pytest.raises(CannotCapture, match="no helper"):
        Launch()


@needs_namespaces
def test_maps_that_cannot_be_written_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(process: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(launching, "write_maps", refuse)
    with pytest.raises(CannotCapture, match="not permitted"):
        Launch()
    assert Path("/proc/self").exists()


@needs_namespaces
def test_there_is_time_for_something_else_while_the_namespace_is_made() -> None:
    done: list[int] = []
    launch = Launch(lambda: done.append(os.getpid()))
    try:
        assert done == [os.getpid()]
        for sock in launch.sockets().values():
            sock.close()
    finally:
        launch.close()


@needs_namespaces
def test_what_fails_meanwhile_leaves_no_helper() -> None:
    def fail() -> None:
        raise ImportError("nothing of that name")

    before = _descriptors()
    with pytest.raises(ImportError):
        Launch(fail)
    assert _descriptors() == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def _descriptors() -> list[str]:
    return sorted(path.name for path in Path("/proc/self/fd").iterdir())
