"""Which port it is: the one wished for, any, or one that a rule names; a run as a whole or not at all."""

from __future__ import annotations

import socket

import pytest

from doorward.api import AddressInUse, BadArgument
from doorward.api.contracts import TransportName
from doorward.engine.ports.free_port import QUIET_PORTS, RANGES_MAX, Ports, candidates, reserve, reserve_run
from doorward.net.reservation import Reservation
from doorward.policy.evaluation import Policy
from doorward.policy.model import Action, PortRange, Rule

HERE = "127.0.0.1"


def rule(*ranges: tuple[int, int], action: Action = Action.ALLOW) -> Rule:
    return Rule("r", action, ports=tuple(PortRange("tcp-in", *r) for r in ranges))


def test_first_the_wish_then_any_then_what_rules_name_once_each() -> None:
    rules = [
        rule((5000, 5009)),
        rule((7, 7), action=Action.DENY),
        rule((0, 65_535)),
        rule((5000, 5009), (0, 3)),
        Rule("outbound", Action.ALLOW, ports=(PortRange("tcp", 80, 80),)),
        Rule("any", Action.ALLOW),
    ]
    policy = Policy(rules, "revision")
    assert list(candidates(policy, 8080)) == [(8080, 8080), (0, 0), (5000, 5009), (1, 3)]
    assert list(candidates(policy, 0)) == [(0, 0), (5000, 5009), (1, 3)]


def test_a_policy_of_many_ranges_has_only_so_many_tried() -> None:
    policy = Policy([rule(*((n, n) for n in range(1, 99)))], "revision")
    assert len(list(candidates(policy, 0))) == 1 + RANGES_MAX


def test_a_port_of_a_range_is_had_and_when_none_is_free_that_is_said() -> None:
    with socket.create_server((HERE, 0)) as taken:
        number = taken.getsockname()[1]
        with pytest.raises(AddressInUse):
            reserve(HERE, Ports(number, number))
    found = reserve(HERE, Ports(number, number))
    assert found.name == (HERE, number)
    found.close()


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_a_run_is_consecutive(transport: str) -> None:
    run = reserve_run(transport, HERE, 0, 5)  # type: ignore[arg-type]  # one of the two
    first = run[0].name[1]
    assert [r.name[1] for r in run] == list(range(first, first + 5))
    for reservation in run:
        reservation.close()


def test_where_neighbours_are_taken_a_run_is_found_below_the_kernels_ports(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Crowded(Reservation):
        def __init__(self, address: str, port: int, transport: TransportName = "tcp") -> None:
            if port > QUIET_PORTS.last:
                raise AddressInUse("a neighbour of one that the kernel chose")
            super().__init__(address, port, transport)

    monkeypatch.setattr("doorward.engine.ports.free_port.Reservation", Crowded)
    run = reserve_run("tcp", HERE, 0, 4)
    assert QUIET_PORTS.first <= run[0].name[1] <= QUIET_PORTS.last
    for reservation in run:
        reservation.close()


def test_a_run_that_cannot_be_had_whole_gives_back_what_it_had() -> None:
    before, taken = reserve_run("tcp", HERE, 0, 2)  # a place where there are two
    before.close()
    with taken.take() as listener:
        listener.listen()
        with pytest.raises(AddressInUse):
            reserve_run("tcp", HERE, before.name[1], 2)
        with socket.socket() as again:
            again.bind(before.name)


def test_a_run_does_not_go_beyond_the_last_port() -> None:
    with pytest.raises(AddressInUse):
        reserve_run("tcp", HERE, 65_535, 2)


def test_what_is_no_address_is_said() -> None:
    with pytest.raises(BadArgument):
        reserve_run("tcp", "example.org", 0, 1)
