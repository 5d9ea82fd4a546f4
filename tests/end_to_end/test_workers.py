"""Several workers as one firewall: who meets whom, and what happens when policies change and logs go."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.end_to_end.conftest import StartFirewall
from tests.end_to_end.running import EVERYTHING_HERE, wait_for
from tests.end_to_end.servers import echo_server
from tests.end_to_end.working import (
    CLIENTS,
    HEAD,
    PATIENT,
    WORKERS,
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


def test_one_client_always_meets_the_same_worker_and_all_workers_serve(start_firewall: StartFirewall) -> None:
    firewall = start_firewall(HEAD + EVERYTHING_HERE)
    with echo_server() as port:
        for _ in range(3):
            for client in CLIENTS:
                visit(firewall, port, client)
        records = firewall.wait_for_records(3 * len(CLIENTS))
    met = defaultdict(set)
    for record in records:
        met[record.client_address].add(worker_of(record.connection))
    assert set(met) == set(CLIENTS)
    assert all(len(workers) == 1 for workers in met.values())
    assert set.union(*met.values()) == set(range(1, WORKERS + 1))
    assert len({record.connection for record in records}) == len(records)
    told = status(firewall)
    assert told["counts"]["allowed"] == sum(worker["begun"] for worker in told["workers"]) == len(records)
    assert told["counts"]["bytes_sent"] == 4 * len(records)


SECOND_FAILS = """
import os
from pathlib import Path
from doorward.api import ApplicationFilter

class Filter(ApplicationFilter):
    async def start(self, firewall):
        try:
            os.close(os.open({lock!r} + self.settings["name"], os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            raise ValueError("somebody was here before me") from None
    def __init__(self, settings):
        super().__init__(settings)
        self.settings = settings
"""


def test_a_reload_that_one_worker_refuses_changes_none(start_firewall: StartFirewall) -> None:
    firewall = start_firewall(HEAD + EVERYTHING_HERE)
    firewall.errors_expected = True
    before = status(firewall)
    (firewall.home / "once.py").write_text(SECOND_FAILS.format(lock=str(firewall.home / "lock-")))
    once = '[[filter]]\nname = "once"\nuse = "once.py"\nsettings = { name = "a" }\n'
    firewall.rewrite_policy(HEAD.replace('"127.0.0.1:0"', '"127.0.0.1:0", "[::1]:0"') + once)
    answer = firewall.doorward("reload")
    assert answer.returncode == 1
    assert "somebody was here before me" in answer.stderr
    assert "the old policy stays in force" in answer.stderr
    assert len(firewall.events("reload refused")) == 1
    after = status(firewall)
    assert (after["policy"], after["listening"], after["filters"]) == (
        before["policy"],
        before["listening"],
        [],
    )
    with echo_server() as port:
        for client in CLIENTS:
            visit(firewall, port, client)
        firewall.rewrite_policy(HEAD)
        assert firewall.doorward("reload").returncode == 0
        for client in CLIENTS:
            with pytest.raises(PermissionError):
                tunnel(firewall, port, client)
    records = firewall.wait_for_records(2 * len(CLIENTS))
    assert len({record.policy for record in records if record.action == "deny"}) == 1
    assert pids(firewall) == [worker["pid"] for worker in before["workers"]]


def test_a_reload_listens_elsewhere_and_mistakes_are_told_once(start_firewall: StartFirewall) -> None:
    firewall = start_firewall(HEAD + EVERYTHING_HERE)
    firewall.errors_expected = True
    firewall.rewrite_policy(HEAD.replace("127.0.0.1:0", "[::1]:0").replace("= 3", "= 2") + EVERYTHING_HERE)
    answer = firewall.doorward("reload")
    assert answer.returncode == 0
    assert "workers take effect at the next start" in answer.stderr
    with pytest.raises(ConnectionRefusedError):
        firewall.dial()
    [address] = status(firewall)["listening"]
    with echo_server() as port, socket.create_connection(("::1", int(address.rpartition(":")[2]))) as sock:
        sock.sendall(f"CONNECT 127.0.0.1:{port} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
        assert sock.recv(100).startswith(b"HTTP/1.1 200 ")
    firewall.rewrite_policy(HEAD + "nonsense = 1\n")
    firewall.hang_up()
    assert len(firewall.events("a problem in the policy file")) == 1
    assert len(firewall.events("reload refused")) == 1


def test_without_a_log_every_worker_refuses_and_all_recover(start_firewall: StartFirewall) -> None:
    firewall = start_firewall(HEAD + EVERYTHING_HERE)
    firewall.errors_expected = True
    with echo_server() as port:
        for client in CLIENTS:
            visit(firewall, port, client)
        firewall.wait_for_records(len(CLIENTS))
        log = firewall.home / "var"
        shutil.rmtree(log)
        log.write_text("in the way")
        visit(firewall, port, CLIENTS[0])  # its record cannot be kept, and everybody hears of that

        def refused_everywhere() -> bool:
            refused = 0
            for client in CLIENTS:
                try:
                    visit(firewall, port, client)
                except PermissionError:
                    refused += 1
            return refused == len(CLIENTS)

        wait_for(refused_everywhere, "nobody is served without a log")
        log.unlink()

        def served_everywhere() -> bool:
            try:
                for client in CLIENTS:
                    visit(firewall, port, client)
            except PermissionError:
                return False
            return True

        wait_for(served_everywhere, "everybody is served again")
    records = firewall.wait_for_records(2 * len(CLIENTS))
    assert any(record.reason == "log_unavailable" for record in records)


def test_sigterm_drains_all_and_a_second_one_does_not_wait(start_firewall: StartFirewall) -> None:
    firewall = start_firewall(PATIENT + EVERYTHING_HERE)
    workers = pids(firewall)
    with echo_server() as port, ExitStack() as stack:
        tunnels = [stack.enter_context(tunnel(firewall, port, client)) for client in CLIENTS]
        firewall.process.terminate()
        wait_for(lambda: firewall.events("draining"), "it drains")

        wait_for(lambda: not listens(firewall), "it listens no more")
        assert all(map(echoes, tunnels))
        for sock in tunnels[1:]:
            sock.close()
        firewall.wait_for_records(len(CLIENTS) - 1, lambda record: record.end == "closed")
        assert firewall.process.poll() is None
        firewall.process.terminate()
        assert firewall.process.wait(5) == 0
        with pytest.raises(ConnectionResetError):
            tunnels[0].recv(1)
    ends = [record.end for record in firewall.records() if record.action == "allow"]
    assert sorted(map(str, ends)) == ["closed"] * (len(CLIENTS) - 1) + ["shutdown"]
    assert not any(map(runs, workers))


def test_ctrl_c_at_a_terminal_ends_all_in_order(start_firewall: StartFirewall) -> None:
    firewall = start_firewall(PATIENT + EVERYTHING_HERE)
    workers = pids(firewall)
    with echo_server() as port, tunnel(firewall, port, CLIENTS[0]) as sock:
        assert echoes(sock)
        for pid in (*workers, firewall.pid):  # a terminal sends it to everybody
            os.kill(pid, signal.SIGINT)
        assert firewall.process.wait(5) == 0
    [record] = firewall.records()
    assert record.end == "shutdown"


@pytest.mark.parametrize("which", ["cannot listen", "filter"])
def test_if_one_worker_cannot_start_the_whole_start_is_refused(
    start_firewall: StartFirewall, which: str, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        lock = str(tmp_path / "lock-")
        files = {"once.py": SECOND_FAILS.format(lock=lock)}
        once = '[[filter]]\nname = "once"\nuse = "once.py"\nsettings = { name = "a" }\n'
        port = taken.getsockname()[1]
        policy = HEAD.replace("127.0.0.1:0", f"127.0.0.1:{port}") if which == "cannot listen" else HEAD + once
        with pytest.raises(AssertionError) as failure:
            start_firewall(policy + EVERYTHING_HERE, files=files)
    expected = f"cannot listen on 127.0.0.1 port {port}" if which == "cannot listen" else "somebody was here"
    assert expected in str(failure.value)
    assert "Traceback" not in str(failure.value)


def test_published_servers_are_reached_through_every_worker(start_firewall: StartFirewall) -> None:
    with echo_server() as port:
        listen = '["tcp/127.0.0.1:0", "udp/127.0.0.1:0"]'
        publish = f'[[publish]]\nname = "echo"\nlisten = {listen}\nfrom = ["127.0.0.0/8"]\nto = ["127.0.0.1:{port}"]\n'
        firewall = start_firewall(HEAD + publish)
        told = wait_for(lambda: firewall.events("a server is published"), "it is published")
        number = int(re.findall(r"tcp/127.0.0.1:([0-9]+)", told[0]["at"])[0])
        for _ in range(2):
            for client in CLIENTS:
                with socket.create_connection(("127.0.0.1", number), 10, (client, 0)) as sock:
                    assert echoes(sock)
        records = firewall.wait_for_records(2 * len(CLIENTS), lambda record: record.bytes_sent > 0)
    met = defaultdict(set)
    for record in records:
        met[record.address if record.operation == "accept" else record.client_address].add(
            worker_of(record.connection)
        )
    assert all(len(workers) == 1 for workers in met.values()), met
    assert set.union(*met.values()) == set(range(1, WORKERS + 1))
