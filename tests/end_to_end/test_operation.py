"""What operators do to a firewall: kill it, stop it, reload it, watch it, break its policy, take its disk away."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.end_to_end.conftest import StartFirewall
from tests.end_to_end.dialling import Refused, connect, socks5
from tests.end_to_end.running import EVERYTHING_HERE, LISTEN, REPOSITORY, RunningFirewall, wait_for
from tests.end_to_end.servers import echo_server, http_server

PATIENT_DRAIN = LISTEN.replace("drain_timeout_s = 1", "drain_timeout_s = 10")


@contextmanager
def clients_at_work(firewall: RunningFirewall, port: int) -> Iterator[list[str]]:
    """Two clients that make one echo after another, and one that keeps its tunnel; yields what went wrong."""
    troubles: list[str] = []
    done = threading.Event()

    def come_and_go() -> None:
        while not done.is_set():
            try:
                with connect(firewall.port, port) as sock:
                    sock.sendall(b"ping")
                    assert sock.recv(4) == b"ping"
            except (OSError, Refused, AssertionError) as error:
                troubles.append(repr(error))
                return

    def stay() -> None:
        try:
            with socks5(firewall.port, port) as sock:
                while not done.is_set():
                    sock.sendall(b"ping")
                    assert sock.recv(4) == b"ping"
        except (OSError, Refused, AssertionError) as error:
            troubles.append(repr(error))

    threads = [threading.Thread(target=target) for target in (come_and_go, come_and_go, stay)]
    for thread in threads:
        thread.start()
    try:
        yield troubles
    finally:
        done.set()
        for thread in threads:
            thread.join()


def test_a_killed_firewall_leaves_a_log_that_holds_all_but_the_last_second(
    start_firewall: StartFirewall,
) -> None:
    firewall = start_firewall()
    finished: list[float] = []
    with echo_server() as port:
        deadline = time.monotonic() + 2.5
        while time.monotonic() < deadline:
            with connect(firewall.port, port) as sock:
                sock.sendall(b"ping")
                assert sock.recv(4) == b"ping"
            finished.append(time.monotonic())
    killed = time.monotonic()
    firewall.kill()
    older = [moment for moment in finished if moment < killed - 1.0]
    records = firewall.records()
    assert len(older) <= len(records) <= len(finished)
    assert {record.end for record in records} == {"closed"}
    again = RunningFirewall(firewall.home)  # the same files: the lock of the dead one must not keep it out
    again.end()


def test_clients_notice_nothing_of_reloads(start_firewall: StartFirewall) -> None:
    firewall = start_firewall()
    with echo_server() as port, clients_at_work(firewall, port) as troubles:
        for number in range(20):
            rule = f'[[rule]]\nname = "{number}"\naction = "deny"\nto = ["192.0.2.{number}"]\nprotocols = ["any"]\n'
            firewall.rewrite_policy(LISTEN + rule + EVERYTHING_HERE)
            firewall.hang_up()
    assert troubles == []
    assert len(firewall.events("reloaded")) == 20


def test_a_reload_is_in_force_for_the_next_connection(start_firewall: StartFirewall) -> None:
    firewall = start_firewall(LISTEN)
    with echo_server() as port:
        with pytest.raises(Refused):
            connect(firewall.port, port)
        firewall.rewrite_policy(LISTEN + EVERYTHING_HERE)
        firewall.hang_up()
        connect(firewall.port, port).close()
        firewall.rewrite_policy(LISTEN)
        assert firewall.doorward("reload").returncode == 0
        with pytest.raises(Refused):
            connect(firewall.port, port)


def unlink(path: Path) -> None:
    path.unlink()


def make_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def make_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def fill_with_noise(path: Path) -> None:
    path.write_bytes(os.urandom(1000))


def misspell(path: Path) -> None:
    path.write_text(LISTEN + EVERYTHING_HERE.replace("allow", "alow"))


def name_a_filter_that_is_not_there(path: Path) -> None:
    path.write_text(LISTEN + '[[filter]]\nname = "x"\nuse = "not_there.py"\n' + EVERYTHING_HERE)


@pytest.mark.parametrize(
    "damage", [unlink, make_directory, make_fifo, fill_with_noise, misspell, name_a_filter_that_is_not_there]
)
def test_a_damaged_policy_file_is_never_loaded_and_the_log_says_what_is_wrong(
    start_firewall: StartFirewall, damage: Callable[[Path], None]
) -> None:
    firewall = start_firewall()
    firewall.errors_expected = True
    damage(firewall.policy_path)
    firewall.hang_up()
    assert firewall.events("reloaded") == []
    assert str(firewall.home) in str(firewall.told()) or "not_there.py" in str(firewall.told())
    with echo_server() as port, connect(firewall.port, port) as sock:
        sock.sendall(b"ping")
        assert sock.recv(4) == b"ping"


def test_sigterm_lets_live_tunnels_end_and_takes_no_new_ones(start_firewall: StartFirewall) -> None:
    firewall = start_firewall(PATIENT_DRAIN + EVERYTHING_HERE)
    with echo_server() as port, socks5(firewall.port, port) as sock:
        firewall.process.terminate()
        wait_for(lambda: firewall.events("draining"), "it drains")
        with pytest.raises(ConnectionError):
            connect(firewall.port, port)
        sock.sendall(b"ping")
        assert sock.recv(4) == b"ping"
    assert firewall.process.wait(10) == 0
    [record] = firewall.records()
    assert (record.end, record.bytes_sent) == ("closed", 4)


@pytest.mark.parametrize("signals", [[signal.SIGINT], [signal.SIGTERM, signal.SIGTERM]])
def test_whoever_is_in_a_hurry_gets_the_end_at_once_and_every_record(
    start_firewall: StartFirewall, signals: list[signal.Signals]
) -> None:
    firewall = start_firewall(PATIENT_DRAIN + EVERYTHING_HERE)
    with echo_server() as port, socks5(firewall.port, port) as sock:
        firewall.process.send_signal(signals[0])
        for number in signals[1:]:  # two at once would be one for the kernel
            wait_for(lambda: firewall.events("draining"), "it drains")
            firewall.process.send_signal(number)
        with pytest.raises(ConnectionResetError):
            sock.recv(1)
    assert firewall.process.wait(5) == 0
    [record] = firewall.records()
    assert (record.action, record.end, record.ended_by) == ("allow", "shutdown", "ours")


def test_log_follow_shows_each_connection_once(start_firewall: StartFirewall) -> None:
    firewall = start_firewall()
    shown = firewall.home / "shown"
    command = [
        sys.executable, "-m", "doorward", "log", "--follow", "--json", "--file", str(firewall.log_path),
    ]  # fmt: skip
    with echo_server() as port, shown.open("wb") as output:
        connect(firewall.port, port).close()
        firewall.wait_for_records(1)
        environment = os.environ | {"PYTHONPATH": str(REPOSITORY / "src"), "PYTHONUNBUFFERED": "1"}
        following = subprocess.Popen(command, stdout=output, env=environment)
        try:
            wait_for(lambda: shown.read_text().count("\n") == 1, "what was there is shown")
            for _ in range(500):
                connect(firewall.port, port).close()
            wait_for(lambda: shown.read_text().count("\n") >= 501, "what is new is shown")
        finally:
            following.terminate()
            following.wait(10)
    lines = shown.read_text().splitlines()
    assert len(lines) == len(set(lines)) == 501


def test_a_log_that_was_taken_away_is_begun_anew(start_firewall: StartFirewall) -> None:
    firewall = start_firewall()
    with echo_server() as port:
        connect(firewall.port, port).close()
        firewall.wait_for_records(1)
        firewall.log_path.rename(firewall.home / "kept.db")
        connect(firewall.port, port).close()
        wait_for(firewall.log_path.exists, "a new log is begun")
        firewall.wait_for_records(1)


def test_a_second_firewall_keeps_its_hands_off_the_first_ones_log(start_firewall: StartFirewall) -> None:
    firewall = start_firewall()
    command = [sys.executable, "-m", "doorward", "serve", "--policy", str(firewall.policy_path)]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY / "src")}
    done = subprocess.run(command, capture_output=True, text=True, timeout=15, check=False, env=environment)
    assert done.returncode == 1
    assert "another doorward" in done.stderr
    assert firewall.doorward("reload").returncode == 0


def test_requests_in_flight_are_finished_while_the_firewall_drains(start_firewall: StartFirewall) -> None:
    firewall = start_firewall(PATIENT_DRAIN + EVERYTHING_HERE)
    idle = firewall.sockets()
    with http_server() as port, firewall.dial() as sock:
        sock.sendall(
            f"POST http://127.0.0.1:{port}/ HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: 4\r\n\r\nab".encode()
        )
        wait_for(lambda: firewall.sockets() == idle + 2, "the request is under way")
        firewall.process.terminate()
        wait_for(lambda: firewall.events("draining"), "it drains")
        sock.sendall(b"cd")
        answer = b""
        while b"POST 4 " not in answer:
            piece = sock.recv(4096)
            assert piece, answer
            answer += piece
        sock.shutdown(socket.SHUT_WR)
    assert firewall.process.wait(10) == 0
