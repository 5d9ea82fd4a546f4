"""Which machine is tried first, and how each fares, on a clock of the test's own."""

from __future__ import annotations

from collections import Counter
from ipaddress import IPv4Address, ip_address, ip_network
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from doorward.config.model import Published
from doorward.engine.publishing.servers import REST_MAX_S, REST_MIN_S, TOLD_PAUSE_S, Servers

CLIENT = ip_address("192.0.2.1")


class Fixed:
    """Servers, and what was told of them."""

    def __init__(self, count: int = 3, **options: Any) -> None:
        self.now = 100.0
        self.told: list[tuple[str, str]] = []
        published = Published(
            name="web",
            listen=(),
            to=tuple((ip_address(f"10.0.0.{number}"), 80) for number in range(1, count + 1)),
            sources=(ip_network("0.0.0.0/0"),),
            **options,
        )
        self.servers = Servers(published, lambda: self.now, lambda s, why: self.told.append((s.name, why)))

    def order(self, client: Any = CLIENT) -> list[int]:
        """The last byte of each machine's address."""
        return [int(server.address) & 0xFF for server in self.servers.order(client)]


def test_the_first_one_that_is_well_is_tried_first_and_those_that_rest_last() -> None:
    fixed = Fixed()
    first, second, _ = fixed.servers.every
    assert fixed.order() == [1, 2, 3]
    fixed.servers.failed(first, "refused")
    assert fixed.order() == [2, 3, 1]
    fixed.servers.failed(second, "refused")
    assert fixed.order() == [3, 1, 2]
    fixed.now += TOLD_PAUSE_S
    fixed.servers.failed(second, "refused")
    fixed.servers.well(first)
    assert fixed.order() == [1, 3, 2]
    assert fixed.told == [("10.0.0.1:80", "refused"), ("10.0.0.2:80", "refused"), ("10.0.0.1:80", "")]


def test_after_a_rest_one_client_finds_out_and_the_others_are_spared() -> None:
    fixed = Fixed()
    first = fixed.servers.every[0]
    fixed.servers.failed(first, "refused")
    fixed.now += REST_MIN_S
    assert fixed.order() == [1, 2, 3]
    assert fixed.order() == [2, 3, 1]
    fixed.servers.failed(first, "refused")
    fixed.now += REST_MIN_S
    assert fixed.order() == [2, 3, 1]  # it rests twice as long
    fixed.now += REST_MIN_S
    assert fixed.order() == [1, 2, 3]


def test_a_rest_has_a_limit_and_one_answer_ends_it() -> None:
    fixed = Fixed()
    first = fixed.servers.every[0]
    for _ in range(20):
        fixed.servers.failed(first, "refused")
    assert first.rest_s == REST_MAX_S
    fixed.now += TOLD_PAUSE_S
    fixed.servers.well(first)
    assert first.is_well
    assert len(fixed.told) == 2  # gone, and back


def test_one_that_answers_every_other_time_is_not_told_of_each_time_but_its_last_state_is() -> None:
    fixed = Fixed(1)
    (only,) = fixed.servers.every
    for _ in range(100):
        fixed.now += 0.01
        fixed.servers.failed(only, "refused")
        fixed.servers.well(only)
    assert len(fixed.told) == 1
    fixed.now += TOLD_PAUSE_S
    fixed.servers.well(only)
    assert fixed.told == [("10.0.0.1:80", "refused"), ("10.0.0.1:80", "")]


def test_what_a_probe_has_found_down_is_not_tried_until_one_is_answered() -> None:
    fixed = Fixed(2)
    first, second = fixed.servers.every
    fixed.servers.down(first, "probe")
    assert fixed.order() == [2]
    fixed.servers.down(second, "probe")
    assert fixed.order() == []
    fixed.servers.well(first)
    assert fixed.order() == [1]


def test_each_client_has_its_own_machine_and_keeps_it_whatever_happens_to_others() -> None:
    fixed = Fixed(4, balance="client")
    clients = [IPv4Address(0xC000_0200 + number) for number in range(400)]
    before = {client: fixed.order(client)[0] for client in clients}
    counts = Counter(before.values())
    assert set(counts) == {1, 2, 3, 4}
    assert min(counts.values()) > 60
    fixed.servers.down(fixed.servers.every[1], "probe")
    after = {client: fixed.order(client)[0] for client in clients}
    assert all(after[client] == machine for client, machine in before.items() if machine != 2)
    assert {after[client] for client, machine in before.items() if machine == 2} == {1, 3, 4}


@given(st.lists(st.tuples(st.sampled_from(["failed", "well", "down", "later"]), st.integers(0, 2))))
def test_whatever_happens_everybody_who_is_not_down_is_tried_once(steps: list[tuple[str, int]]) -> None:
    fixed = Fixed()
    for what, number in steps:
        server = fixed.servers.every[number]
        if what == "later":
            fixed.now += 1.7
        elif what == "well":
            fixed.servers.well(server)
        else:
            getattr(fixed.servers, what)(server, "why")
        order = fixed.order()
        assert sorted(order) == [n for n in (1, 2, 3) if not fixed.servers.every[n - 1].is_down]
        well = [n for n in order if fixed.servers.every[n - 1].is_well]
        assert well == sorted(well)
