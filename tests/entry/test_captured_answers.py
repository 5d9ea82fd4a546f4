"""Sockets that answer for others: made on request, kept a while, and never waited for."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from doorward.capture import passing
from doorward.capture.sockets import place_of
from doorward.entry import captured_answers
from doorward.entry.captured_answers import HELD_MAX, WAITING_MAX, Answers
from doorward.net.poller import Poller

pytestmark = pytest.mark.anyio


class Helper:
    """Plays the helper: its answers are sockets on this machine's loopback."""

    def __init__(self) -> None:
        ours, self.channel = passing.pair()
        ours.setblocking(False)
        self.ours = ours
        self.channel.settimeout(5)

    def asked(self) -> str:
        return passing.receive(self.channel)[0]

    def give(self, text: str) -> None:
        place = place_of(text)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
            made.bind((place.host, place.port))
            passing.send(self.channel, text, [made.fileno()])


@pytest.fixture
def helper() -> Iterator[Helper]:
    made = Helper()
    with made.ours, made.channel:
        yield made


@pytest.fixture
def client() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.settimeout(5)
        yield sock


def made(helper: Helper) -> tuple[Poller, Answers]:
    poller = Poller(asyncio.get_running_loop())
    answers = Answers(poller, helper.ours)
    answers.start()
    return poller, answers


async def turn() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


async def test_the_first_answers_wait_for_their_socket_and_the_next_use_it(
    helper: Helper, client: socket.socket
) -> None:
    poller, answers = made(helper)
    source = ("127.0.0.1", free_port())
    assert answers.send(source, b"one", client.getsockname())
    assert answers.send(source, memoryview(b"two"), client.getsockname())
    helper.give(helper.asked())
    await turn()
    assert answers.send(source, b"three", client.getsockname())
    assert [client.recvfrom(10) for _ in range(3)] == [(b"one", source), (b"two", source), (b"three", source)]
    assert len(answers) == 1
    answers.close()
    answers.close()
    poller.close()
    assert not len(answers)


async def test_few_wait_and_the_rest_are_dropped(helper: Helper, client: socket.socket) -> None:
    poller, answers = made(helper)
    source = ("127.0.0.1", free_port())
    assert [answers.send(source, b"x", client.getsockname()) for _ in range(HELD_MAX + 2)].count(False) == 2
    for number in range(WAITING_MAX + 5):
        answers.send(("127.0.0.1", 1 + number), b"x", client.getsockname())
    assert answers.dropped == 2 + 6
    answers.close()
    assert answers.dropped == 2 + 6 + HELD_MAX + WAITING_MAX - 1
    poller.close()


async def test_a_socket_that_cannot_be_had_costs_what_waited_for_it(
    helper: Helper, client: socket.socket
) -> None:
    poller, answers = made(helper)
    answers.send(("127.0.0.1", 5000), b"x", client.getsockname())
    passing.send(helper.channel, f"{helper.asked()} failed")
    await turn()
    assert (answers.dropped, len(answers)) == (1, 0)
    answers.close()
    poller.close()


async def test_the_longest_unused_makes_room(
    helper: Helper, client: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(captured_answers, "SOCKETS_MAX", 2)
    poller, answers = made(helper)
    sources = [("127.0.0.1", free_port()) for _ in range(3)]
    for source in (*sources[:2], sources[0], sources[2]):
        before = len(answers._held)
        answers.send(source, b"x", client.getsockname())
        if len(answers._held) > before:
            helper.give(helper.asked())
            await turn()
    assert set(answers._sockets) == {sources[0], sources[2]}
    answers.close()
    poller.close()


async def test_without_a_helper_nothing_is_answered_and_nothing_breaks(
    helper: Helper, client: socket.socket
) -> None:
    poller, answers = made(helper)
    helper.channel.close()
    await turn()
    assert not answers.send(("127.0.0.1", 5000), b"x", client.getsockname())
    assert answers.dropped == 1
    answers.close()
    poller.close()


async def test_a_packet_that_makes_no_sense_is_passed_over(helper: Helper, client: socket.socket) -> None:
    poller, answers = made(helper)
    passing.send(helper.channel, "nobody asked for this")
    await turn()
    assert not len(answers)
    answers.close()
    poller.close()


async def test_an_answer_that_is_not_what_was_asked_for_is_closed(
    helper: Helper, client: socket.socket, tmp_path: Path
) -> None:
    poller, answers = made(helper)
    place = f"udp,127.0.0.1,{free_port()}"
    with (tmp_path / "file").open("wb") as file, socket.create_server(("127.0.0.1", 0)) as other:
        for descriptors in ([file.fileno()], [other.fileno()], [client.fileno()], [client.fileno()] * 3):
            answers.send(place_of(place)[1:], b"x", client.getsockname())
            helper.asked()
            before = open_descriptors()
            passing.send(helper.channel, place, descriptors)
            await turn()
            assert open_descriptors() == before
    assert (answers.dropped, len(answers)) == (4, 0)
    answers.close()
    poller.close()


async def test_a_socket_that_comes_twice_is_kept_once(helper: Helper, client: socket.socket) -> None:
    poller, answers = made(helper)
    source = ("127.0.0.1", free_port())
    answers.send(source, b"x", client.getsockname())
    asked = helper.asked()
    helper.give(asked)
    await turn()
    (first,) = answers._sockets.values()
    passing.send(helper.channel, asked, [first.fileno()])
    await turn()
    (second,) = answers._sockets.values()
    assert (first.fileno(), second.getsockname()) == (-1, source)
    answers.close()
    poller.close()
