"""What tests of several workers have in common: clients with addresses of their own, and who is there."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.end_to_end.running import LISTEN, RunningFirewall

from doorward.record.packets import NUMBERS

WORKERS = 3
HEAD = LISTEN.replace("[limits]", f"workers = {WORKERS}\n[limits]")
PATIENT = HEAD.replace("drain_timeout_s = 1", "drain_timeout_s = 10")
CLIENTS = [f"127.0.0.{number}" for number in range(2, 22)]


def tunnel(firewall: RunningFirewall, port: int, client: str, timeout_s: float = 15) -> socket.socket:
    """A tunnel through SOCKS5 for a client with this address."""
    sock = socket.socket()
    sock.settimeout(timeout_s)
    try:
        sock.bind((client, 0))
        sock.connect(("127.0.0.1", firewall.port))
        sock.sendall(b"\x05\x01\x00")
        assert sock.recv(2) == b"\x05\x00"
        sock.sendall(b"\x05\x01\x00\x01\x7f\0\0\x01" + port.to_bytes(2, "big"))
        answer = sock.recv(10)
        if not answer:
            raise ConnectionError("closed without an answer")
        if answer[1]:
            raise PermissionError(answer[1])
    except BaseException:
        sock.close()
        raise
    return sock


def echoes(sock: socket.socket) -> bool:
    sock.sendall(b"ping")
    return sock.recv(4) == b"ping"


def visit(firewall: RunningFirewall, port: int, client: str, timeout_s: float = 15) -> None:
    """One whole connection."""
    with tunnel(firewall, port, client, timeout_s) as sock:
        assert echoes(sock)


def status(firewall: RunningFirewall) -> dict[str, Any]:
    answer = firewall.doorward("status", "--json")
    assert answer.returncode == 0, answer.stderr
    found: dict[str, Any] = json.loads(answer.stdout)
    return found


def pids(firewall: RunningFirewall) -> list[int]:
    """The workers' processes, by their places."""
    return [worker["pid"] for worker in status(firewall)["workers"]]


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def listens(firewall: RunningFirewall) -> bool:
    try:
        firewall.dial().close()
    except OSError:
        return False
    return True


def worker_of(connection: int) -> int:
    """Which process a connection's number is of, by the order of their starts."""
    return connection // NUMBERS


@contextmanager
def coming_and_going(
    firewall: RunningFirewall, port: int, clients: list[str]
) -> Iterator[dict[str, list[float]]]:
    """Clients that make one connection after the other; yields when each of them was served."""
    served: dict[str, list[float]] = {client: [] for client in clients}
    done = threading.Event()

    def come_and_go(client: str) -> None:
        while not done.is_set():
            try:
                visit(firewall, port, client, 5)
            except (OSError, AssertionError):
                continue
            served[client].append(time.monotonic())
            done.wait(0.01)

    threads = [threading.Thread(target=come_and_go, args=(client,)) for client in clients]
    for thread in threads:
        thread.start()
    try:
        yield served
    finally:
        done.set()
        for thread in threads:
            thread.join()
