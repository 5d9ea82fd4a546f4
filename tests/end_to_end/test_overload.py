"""More than there is room for: descriptors run short, thousands are idle, clients come and vanish in swarms."""

from __future__ import annotations

import random
import resource
import select
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from tests.end_to_end.conftest import StartFirewall
from tests.end_to_end.dialling import Refused, connect, socks5
from tests.end_to_end.running import EVERYTHING_HERE, LISTEN, RunningFirewall, wait_for
from tests.end_to_end.servers import echo_server, silent_server

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("overload")]

DESCRIPTORS = 128


def echoes(sock: socket.socket) -> bool:
    """Whether the tunnel works."""
    sock.sendall(b"ping")
    return sock.recv(4) == b"ping"


@pytest.fixture
def own_descriptors() -> Iterator[int]:
    """As many as this process may have; how many that is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.timeout(60)
def test_when_descriptors_run_short_old_tunnels_live_new_clients_wait_and_come_in_later(
    start_firewall: StartFirewall,
) -> None:
    firewall = start_firewall(descriptors_max=DESCRIPTORS)
    with ExitStack() as stack:
        port = stack.enter_context(echo_server())
        old: list[socket.socket] = []
        waiting: socket.socket | None = None
        while waiting is None:
            sock = stack.enter_context(firewall.dial())
            sock.settimeout(1)
            try:
                sock.sendall(f"CONNECT 127.0.0.1:{port} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
                answer = sock.recv(4096)
            except TimeoutError:
                waiting = sock
            else:
                assert answer.startswith(b"HTTP/1.1 200 "), answer
                old.append(sock)
        assert firewall.events("new clients have to wait")
        assert len(old) > DESCRIPTORS // 4
        # Bulk data needs pipes: they are for speed, and must not be missed.
        for sock in old:
            sock.settimeout(10)
            sock.sendall(b"x" * 65_536)
        for sock in old:
            left = 65_536
            while left:
                left -= len(sock.recv(left))
        assert all(echoes(sock) for sock in old)
        for sock in old[:10]:
            sock.close()
        waiting.settimeout(10)
        assert waiting.recv(4096).startswith(b"HTTP/1.1 200 ")
        assert echoes(waiting)
        assert all(echoes(sock) for sock in old[10:])
    firewall.wait_for_records(len(old) + 1)
    assert {record.action for record in firewall.records()} == {"allow"}


@pytest.mark.timeout(60)
def test_thousands_of_idle_tunnels_stand_and_each_of_them_still_works(
    firewall: RunningFirewall, own_descriptors: int
) -> None:
    count = min(5000, (own_descriptors - 400) // 2)
    with ExitStack() as stack:
        server = stack.enter_context(silent_server())
        port = server.getsockname()[1]
        inner: list[socket.socket] = []
        outer: dict[tuple[str, int], socket.socket] = {}
        for _ in range(count):
            inner.append(stack.enter_context(socks5(firewall.port, port)))
            accepted, address = server.accept()
            outer[address] = stack.enter_context(accepted)
        assert firewall.sockets() > 2 * count
        for number, sock in enumerate(inner):
            sock.sendall(struct.pack(">I", number))
        numbers = {struct.unpack(">I", sock.recv(4))[0] for sock in outer.values()}
        assert numbers == set(range(count))
    wait_for(lambda: firewall.sockets() < 50, "all of them are gone")
    ended = firewall.wait_for_records(count, lambda record: record.port == port)
    assert len(ended) == count
    if count < 5000:
        pytest.skip(f"done with {count}: this process may have {own_descriptors} descriptors only")


TASKS_TOLD = """
import asyncio
from doorward.api import ApplicationFilter, ConnectEvent, Firewall, Interest, Session, SessionFilter

class Teller(SessionFilter):
    def __init__(self, firewall: Firewall) -> None:
        self.firewall = firewall

    async def on_connect(self, event: ConnectEvent) -> None:
        self.firewall.log("tasks", count=len(asyncio.all_tasks()))

class TellTasks(ApplicationFilter):
    interest = Interest.of("tcp/1")

    async def start(self, firewall: Firewall) -> None:
        self.firewall = firewall

    def session_filter(self, session: Session) -> SessionFilter:
        return Teller(self.firewall)
"""


def tasks(firewall: RunningFirewall) -> int:
    """How many tasks the firewall has just now, the asking one among them."""
    before = len(firewall.events("tasks"))
    try:
        connect(firewall.port, 1).close()
    except Refused:
        pass
    return int(wait_for(lambda: firewall.events("tasks")[before:], "the filter tells")[0]["count"])


def vanish(sock: socket.socket, chance: random.Random) -> None:
    """Leave in one of the ways there are."""
    if chance.random() < 0.5:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def swarm(firewall: RunningFirewall, port: int, chance: random.Random, count: int) -> None:
    """Clients that leave at any moment: before a byte, within a handshake, within a tunnel full of data."""
    here: list[socket.socket] = []
    whole = b"\x05\x01\x00\x05\x01\x00\x01\x7f\x00\x00\x01" + struct.pack(">H", port) + b"x" * 200_000
    request = f"GET http://127.0.0.1:{port}/ HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()
    for _ in range(count):
        sock = firewall.dial()
        said = chance.choice([whole, request])
        said = said[: chance.choice([0, 1, 5, 12, len(said) // 2, len(said)])]
        sock.setblocking(False)
        try:
            sock.send(said)
            if chance.random() < 0.3:
                sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        here.append(sock)
        if len(here) > 20:
            select.select([], [], [], chance.choice([0, 0, 0.001]))
            vanish(here.pop(chance.randrange(len(here))), chance)
    for sock in here:
        vanish(sock, chance)


@pytest.mark.timeout(90)
def test_after_swarms_of_vanishing_clients_nothing_is_left_of_them(start_firewall: StartFirewall) -> None:
    policy = (
        LISTEN
        + "handshake_timeout_s = 1\n"
        + '[[filter]]\nname = "tell"\nuse = "tell.py"\n'
        + EVERYTHING_HERE
    )
    firewall = start_firewall(policy, files={"tell.py": TASKS_TOLD})
    chance = random.Random(7)  # noqa: S311 - the same swarm every time
    memory: list[int] = []
    with echo_server() as port:
        swarm(firewall, port, chance, 500)  # what the first ones load is not what the others leave
        wait_for(lambda: firewall.sockets() < 20, "the first swarm is gone")
        sockets, before = firewall.sockets(), tasks(firewall)
        for _ in range(4):
            swarm(firewall, port, chance, 1000)
            wait_for(lambda: firewall.sockets() <= sockets, "the swarm is gone")
            wait_for(lambda: tasks(firewall) <= before, "no task of theirs is left")
            memory.append(firewall.resident_bytes())
        with socks5(firewall.port, port) as sock:
            assert echoes(sock)
    assert memory[-1] - memory[0] < 16 * 2**20, memory
