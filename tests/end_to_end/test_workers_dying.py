"""Processes of a firewall with several workers die, one or all: others go on, nothing stays behind."""

from __future__ import annotations

import os
import signal
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest
from tests.end_to_end.conftest import StartFirewall
from tests.end_to_end.running import EVERYTHING_HERE, RunningFirewall, wait_for
from tests.end_to_end.servers import echo_server
from tests.end_to_end.working import (
    CLIENTS,
    HEAD,
    WORKERS,
    coming_and_going,
    echoes,
    listens,
    pids,
    runs,
    status,
    tunnel,
    visit,
    worker_of,
)

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("workers")]


def test_a_worker_that_is_killed_is_replaced_and_the_others_go_on(start_firewall: StartFirewall) -> None:
    firewall = start_firewall(HEAD + EVERYTHING_HERE)
    firewall.errors_expected = True
    with echo_server() as port, ExitStack() as stack:
        alive = {client: stack.enter_context(tunnel(firewall, port, client)) for client in CLIENTS}
        assert all(map(echoes, alive.values()))
        with coming_and_going(firewall, port, CLIENTS[:6]) as served:
            wait_for(lambda: all(served.values()), "everybody was served")
            time.sleep(1.2)  # so that there are batches on disk
            place = worker_of(firewall.records()[0].connection)  # somebody has met it
            victim = pids(firewall)[place - 1]
            killed = time.monotonic()
            os.kill(victim, signal.SIGKILL)
            wait_for(
                lambda: all(moments[-1] > killed for moments in served.values()), "everybody is served again"
            )
            again = max(min(moment for moment in moments if moment > killed) for moments in served.values())
            assert again - killed < 3
        survivors = []
        for client, sock in alive.items():
            try:
                if echoes(sock):
                    survivors.append(client)
            except ConnectionError:
                pass
        assert 0 < len(survivors) < len(CLIENTS)
    [told] = firewall.events("a worker ended")
    assert (told["signal"], told["pid"], told["worker"]) == (9, victim, place)
    now = status(firewall)["workers"]
    assert sorted(worker["restarts"] for worker in now) == [0, 0, 1]
    assert (now[place - 1]["restarts"], now[place - 1]["pid"] == victim) == (1, False)
    # What the dead one had served until a second before is on record, and its successor's numbers are others.
    of_dead = [r for r in firewall.records() if worker_of(r.connection) == place]
    assert of_dead
    older = [moment for client in served for moment in served[client] if moment < killed - 1]
    assert len([r for r in firewall.records() if worker_of(r.connection) <= WORKERS]) >= len(older)
    firewall.wait_for_records(1, lambda record: worker_of(record.connection) == WORKERS + 1)
    numbers = [r.connection for r in firewall.records()]
    assert len(set(numbers)) == len(numbers)


def test_when_the_supervisor_is_killed_nothing_listens_and_nothing_runs(
    start_firewall: StartFirewall,
) -> None:
    firewall = start_firewall(HEAD + EVERYTHING_HERE)
    workers = pids(firewall)
    with echo_server() as port, tunnel(firewall, port, CLIENTS[0]) as sock:
        assert echoes(sock)
        firewall.kill()
        deadline = time.monotonic() + 1
        # A process whose first thread has ended may have others that still let go of its sockets.
        while (any(map(runs, workers)) or listens(firewall)) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not any(map(runs, workers))
        assert not listens(firewall)
        sock.settimeout(5)
        try:
            assert sock.recv(1) == b""
        except ConnectionResetError:
            pass
    again = RunningFirewall(firewall.home, HEAD + EVERYTHING_HERE)
    again.end()


def test_a_worker_that_is_replaced_after_the_file_was_spoilt_has_the_policy_in_force(
    start_firewall: StartFirewall,
) -> None:
    firewall = start_firewall(HEAD + EVERYTHING_HERE)
    firewall.errors_expected = True
    firewall.rewrite_policy("nonsense")
    for pid in pids(firewall):
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: len(firewall.events("a worker was started again")) == WORKERS, "they are back")
    with echo_server() as port:
        for client in CLIENTS:
            visit(firewall, port, client)


def has_come_back(firewall: RunningFirewall, times: int) -> bool:
    return len(firewall.events("a worker was started again")) == times


@pytest.mark.timeout(60)
def test_many_deaths_leave_no_descriptor_and_no_process(start_firewall: StartFirewall) -> None:
    firewall = start_firewall(HEAD.replace(f"= {WORKERS}", "= 2") + EVERYTHING_HERE)
    firewall.errors_expected = True

    def open_files() -> int:
        return len(list(Path(f"/proc/{firewall.pid}/fd").iterdir()))

    def children() -> list[str]:
        return Path(f"/proc/{firewall.pid}/task/{firewall.pid}/children").read_text().split()

    before = open_files()
    for deaths in range(1, 4):  # each faster death is followed by a longer pause
        os.kill(pids(firewall)[0], signal.SIGKILL)
        wait_for(partial(has_come_back, firewall, deaths), "it is back")
    assert [line["again_in_s"] for line in firewall.events("a worker ended")] == [0, 0.5, 1]
    wait_for(lambda: open_files() <= before, "nothing is left open")
    assert len(children()) == 2
