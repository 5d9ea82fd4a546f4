"""Filters on live traffic: they change bytes, they deny, and misbehaving costs them their own connection only."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from tests.end_to_end.conftest import StartFirewall, starting_firewalls
from tests.end_to_end.dialling import Refused, connect, socks5
from tests.end_to_end.running import EVERYTHING_HERE, LISTEN, RunningFirewall, wait_for
from tests.end_to_end.servers import BulkServer, echo_server, http_server, receive_all, send_blocks

SHOUT = """
from doorward.api import StreamFilter

class Shout(StreamFilter):
    def client_data(self, data: bytes) -> bytes:
        return data.upper()
"""
NAMED = '[[filter]]\nname = "a-filter"\nuse = "a_filter.py"\n'


def start_with(start_firewall: StartFirewall, text: str, more: str = "") -> RunningFirewall:
    """A firewall with one filter, from its source text."""
    policy = LISTEN + "filter_stall_s = 0.3\nevent_timeout_s = 0.3\n" + NAMED + more + EVERYTHING_HERE
    return start_firewall(policy, files={"a_filter.py": text})


def test_a_filter_changes_what_passes_and_its_next_version_takes_over_at_reload(
    start_firewall: StartFirewall,
) -> None:
    firewall = start_with(start_firewall, SHOUT)
    with echo_server() as port:
        with socks5(firewall.port, port) as old:
            old.sendall(b"hello")
            assert old.recv(5) == b"HELLO"
            (firewall.home / "a_filter.py").write_text(
                SHOUT.replace("data.upper()", 'data.replace(b"l", b"L")')
            )
            firewall.hang_up()
            with socks5(firewall.port, port) as new:
                new.sendall(b"hello")
                assert new.recv(5) == b"heLLo"
            old.sendall(b"hello")
            assert old.recv(5) == b"HELLO"


def test_a_filter_given_on_the_command_line_is_in_force(start_firewall: StartFirewall) -> None:
    firewall = start_firewall(files={"shout.py": SHOUT}, arguments=["--filter", "{home}/shout.py"])
    with echo_server() as port, connect(firewall.port, port) as sock:
        sock.sendall(b"hello")
        assert sock.recv(5) == b"HELLO"


def test_a_filter_sees_plain_requests_too(start_firewall: StartFirewall) -> None:
    hide = SHOUT.replace("client_data", "server_data").replace("data.upper()", 'data.replace(b"GET", b"got")')
    firewall = start_with(start_firewall, hide)
    with http_server() as port, firewall.dial() as sock:
        sock.sendall(
            f"GET http://127.0.0.1:{port}/ HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n".encode()
        )
        answer = b""
        while piece := sock.recv(4096):
            answer += piece
    assert b"\r\n\r\ngot /\n" in answer


ENOUGH = SHOUT.replace("return data.upper()", "self.seen_enough(); return data")


@pytest.mark.parametrize("text", [SHOUT.replace("data.upper()", "data"), ENOUGH])
def test_bulk_data_through_a_filter_arrives_whole(start_firewall: StartFirewall, text: str) -> None:
    firewall = start_with(start_firewall, text)
    server = BulkServer(0)
    with server.serving() as port, socks5(firewall.port, port) as sock:
        sent = send_blocks(sock, 32)
        assert sock.recv(1) == b""
        assert server.done.wait(10)
        assert server.received == (sent, 32 * 2**20)
    server = BulkServer(32)
    with server.serving() as port, socks5(firewall.port, port) as sock:
        sock.sendall(b"x")
        sock.shutdown(socket.SHUT_WR)
        received = receive_all(sock)
        assert server.done.wait(10)
        assert received == (server.sent, 32 * 2**20)


DENY = """
from doorward.api import ApplicationFilter, ConnectEvent, Session, SessionFilter

class Denier(SessionFilter):
    async def on_connect(self, event: ConnectEvent) -> None:
        event.connection.deny("not_on_sundays")

class Deny(ApplicationFilter):
    def session_filter(self, session: Session) -> SessionFilter:
        return Denier()
"""


def test_a_denial_by_a_filter_reaches_the_client_and_the_record(start_firewall: StartFirewall) -> None:
    firewall = start_with(start_firewall, DENY)
    with firewall.dial() as sock:
        sock.sendall(b"CONNECT 127.0.0.1:9 HTTP/1.1\r\nHost: 127.0.0.1:9\r\n\r\n")
        assert b"not_on_sundays" in sock.recv(4096)
    with pytest.raises(Refused):
        socks5(firewall.port, 9)
    records = firewall.wait_for_records(2)
    assert {(record.action, record.reason) for record in records} == {("deny", "not_on_sundays")}


# What the filter does as soon as the client says something; the bytes of the client choose.
MISDEEDS = {
    "raise": "raise ValueError('no')",
    "wrong": "return None",
    "sleep": "import time; time.sleep(30)",
    "spin": "while True: pass",
    "stubborn": """
            while True:
                try:
                    while True: pass
                except Exception: pass""",
    "exit": "raise SystemExit(3)",
    "interrupt": "raise KeyboardInterrupt",
    "cancel": "import asyncio; raise asyncio.CancelledError",
    "stop": "raise StopIteration",
    "generator": "raise GeneratorExit",
    "recursion": "return self.client_data(data)",
    "memory": "return bytes(2**60)",
    "read": "raise BlockingIOError",
}
MISBEHAVING = (
    "from doorward.api import StreamFilter\n"
    "class Bad(StreamFilter):\n"
    "    def client_data(self, data: bytes) -> bytes:\n"
    + (
        "".join(f"        if data == b'{name}':\n            {code}\n" for name, code in MISDEEDS.items())
        + "        return data\n"
    )
)


@pytest.fixture(scope="module")
def misbehaving() -> Iterator[RunningFirewall]:
    """A firewall with a filter that does whatever the client says."""
    with starting_firewalls() as start:
        firewall = start_with(start, MISBEHAVING)
        firewall.errors_expected = True
        yield firewall


@pytest.mark.parametrize("misdeed", MISDEEDS)
def test_a_filter_that_misbehaves_costs_its_own_connection_only(
    misbehaving: RunningFirewall, misdeed: str
) -> None:
    firewall = misbehaving
    before = len(firewall.events("a filter failed"))
    with echo_server() as port, socks5(firewall.port, port) as other, socks5(firewall.port, port) as sock:
        sock.sendall(misdeed.encode())
        with pytest.raises(ConnectionResetError):
            sock.recv(100)
        other.sendall(b"still here")
        assert other.recv(10) == b"still here"
        with connect(firewall.port, port) as another:
            another.sendall(b"and new")
            assert another.recv(7) == b"and new"
        [record] = firewall.wait_for_records(
            1, lambda record: record.port == port and record.action != "allow"
        )
    assert record.reason in ("filter_failed", "filter_stalled")
    assert (record.action, record.end, record.ended_by) == ("fail", record.reason, "ours")
    assert [line["filter"] for line in firewall.events("a filter failed")[before:]] == ["a-filter"]


HANDLER = """
import asyncio
from doorward.api import ApplicationFilter, ConnectEvent, Session, SessionFilter

class Bad(SessionFilter):
    async def on_connect(self, event: ConnectEvent) -> None:
        if event.port == 9:
            {code}

class Filter(ApplicationFilter):
    def session_filter(self, session: Session) -> SessionFilter:
        return Bad()
"""


@pytest.mark.parametrize(
    "code",
    ["await asyncio.sleep(30)", "raise ValueError", "raise SystemExit", "raise KeyboardInterrupt",
     "raise asyncio.CancelledError", "import time; time.sleep(30)",
     "[asyncio.get_running_loop().create_task(asyncio.sleep(99)) for _ in range(9999)]"],
)  # fmt: skip
def test_an_event_handler_that_misbehaves_refuses_its_own_connection_only(
    start_firewall: StartFirewall, code: str
) -> None:
    firewall = start_with(start_firewall, HANDLER.format(code=code))
    firewall.errors_expected = True
    with echo_server() as port, socks5(firewall.port, port) as other:
        with pytest.raises(Refused):
            connect(firewall.port, 9)
        other.sendall(b"still here")
        assert other.recv(10) == b"still here"
        [record] = firewall.wait_for_records(1, lambda record: record.port == 9)
    assert (record.action, record.reason) in {("fail", "filter_failed"), ("fail", "filter_stalled")}


LEAK = """
import asyncio
from doorward.api import ApplicationFilter, ConnectEvent, Firewall, Session, SessionFilter, StreamFilter

class Nothing(StreamFilter):
    pass

class Leaky(SessionFilter):
    def __init__(self, firewall: Firewall) -> None:
        self.firewall = firewall

    async def on_connect(self, event: ConnectEvent) -> None:
        self.firewall.log("tasks", count=len(asyncio.all_tasks()))
        event.connection.attach_data_filter(Nothing())
        for _ in range(10):
            asyncio.get_running_loop().create_task(asyncio.sleep(1000))

class Filter(ApplicationFilter):
    async def start(self, firewall: Firewall) -> None:
        self.firewall = firewall

    def session_filter(self, session: Session) -> SessionFilter:
        return Leaky(self.firewall)
"""


def test_tasks_that_a_filter_leaves_behind_end_with_their_connection(start_firewall: StartFirewall) -> None:
    firewall = start_with(start_firewall, LEAK)
    with echo_server() as port:
        for _ in range(50):
            with connect(firewall.port, port) as sock:
                sock.sendall(b"x")
                assert sock.recv(1) == b"x"
        firewall.wait_for_records(50)
        connect(firewall.port, port).close()
        told = wait_for(lambda: firewall.events("tasks")[50:], "the filter tells")
    assert told[0]["count"] < 30


@pytest.mark.parametrize("filters", ["", NAMED], ids=["relay", "filter"])
def test_a_limit_of_bytes_holds_whether_a_filter_reads_them_or_not(
    start_firewall: StartFirewall, filters: str
) -> None:
    policy = LISTEN + "bytes_max_per_direction = 100000\n" + filters + EVERYTHING_HERE
    firewall = start_firewall(policy, files={"a_filter.py": SHOUT})
    with echo_server() as port, connect(firewall.port, port) as sock:
        sock.sendall(bytes(100_000))
        received = 0
        while received < 100_000:
            received += len(sock.recv(65_536))
        sock.sendall(b"one more")
        with pytest.raises(ConnectionResetError):
            sock.recv(8)
    [record] = firewall.wait_for_records(1)
    assert (record.end, record.ended_by) == ("byte_limit", "ours")
