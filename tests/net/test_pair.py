"""A pair remembers which side is which, and asks its pump only for what an edge can mean."""

from __future__ import annotations

import select
import socket

import pytest

from doorward.net.pair import Flow, Pair, side_of_sink, side_of_source, with_socket
from doorward.net.relay import Limits

INTERNAL, EXTERNAL = 3, 4


class Asked:
    """A pump that only remembers."""

    def __init__(self) -> None:
        self.pumped: list[Flow] = []
        self.suspected: list[Flow] = []

    def pump(self, flow: Flow) -> None:
        self.pumped.append(flow)

    def ask_for_reset(self, flow: Flow) -> None:
        self.suspected.append(flow)


@pytest.fixture
def asked() -> Asked:
    return Asked()


@pytest.fixture
def pair(asked: Asked) -> Pair:
    return Pair(asked, 1, INTERNAL, EXTERNAL, Limits(idle_s=7.0), now=5.0)


def test_the_flows_lead_from_side_to_side(pair: Pair) -> None:
    assert (pair.outward.source, pair.outward.sink) == (INTERNAL, EXTERNAL)
    assert (pair.inward.source, pair.inward.sink) == (EXTERNAL, INTERNAL)
    assert (side_of_source(pair.outward), side_of_sink(pair.outward)) == ("internal", "external")
    assert (side_of_source(pair.inward), side_of_sink(pair.inward)) == ("external", "internal")
    assert pair.idle_s == 7.0


def test_a_readable_side_pumps_what_it_sends(pair: Pair, asked: Asked) -> None:
    pair.ready(INTERNAL, select.EPOLLIN)
    pair.ready(EXTERNAL, select.EPOLLIN)
    assert asked.pumped == [pair.outward, pair.inward]


def test_a_writable_side_pumps_only_if_something_is_held_for_it(pair: Pair, asked: Asked) -> None:
    pair.ready(INTERNAL, select.EPOLLOUT)
    assert asked.pumped == []
    pair.inward.held = memoryview(b"rest")
    pair.ready(INTERNAL, select.EPOLLOUT)
    assert asked.pumped == [pair.inward]


def test_a_hang_up_means_reading_until_the_end(pair: Pair, asked: Asked) -> None:
    pair.ready(INTERNAL, select.EPOLLIN)
    pair.ready(EXTERNAL, select.EPOLLIN | select.EPOLLRDHUP)
    assert (pair.outward.ending, pair.inward.ending) == (False, True)


def test_an_error_after_the_end_is_asked_about(pair: Pair, asked: Asked) -> None:
    pair.outward.done = True
    pair.ready(INTERNAL, select.EPOLLERR)
    assert asked.suspected == [pair.outward]
    assert pair.outward not in asked.pumped


def test_a_pair_that_is_over_asks_for_nothing_more(pair: Pair, asked: Asked) -> None:
    pair.over = True
    pair.ready(INTERNAL, select.EPOLLIN | select.EPOLLERR)
    assert (asked.pumped, asked.suspected) == ([], [])


def test_a_borrowed_descriptor_stays_open() -> None:
    here, there = socket.socketpair()
    with here, there:
        name = with_socket(here.fileno(), lambda sock: sock.fileno())
        assert name == here.fileno()
        here.send(b"still open")
        assert there.recv(20) == b"still open"
