"""Calls of the session, the connection and the firewall on live traffic: what each does to a real client."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Self

import pytest
from tests.end_to_end.conftest import StartFirewall
from tests.end_to_end.dialling import Refused, connect, socks5
from tests.end_to_end.running import PATIENCE_S, RunningFirewall
from tests.end_to_end.servers import echo_server
from tests.end_to_end.test_bind import exactly
from tests.end_to_end.witness import POLICY, files, heard

# A line from the client is a call; its answer goes back as a line. The server behind it hears nothing.
CONSOLE = """
import asyncio
import time
from doorward.api import (
    AccessDenied, ApplicationFilter, DataFilter, DoorwardError, EventKind, Interest, IpFilter, SessionFilter,
    StreamFilter)

class Shout(StreamFilter):
    def client_data(self, data):
        return data.upper()

class Console(DataFilter):
    async def pump(self, internal, external, connection):
        self.connection, self.session = connection, connection.session
        line = b""
        while data := await internal.recv():
            line += data
            while b"\\n" in line:
                words, _, line = line.partition(b"\\n")
                name, *arguments = words.decode().split()
                try:
                    answer = await getattr(self, name)(*arguments)
                except DoorwardError as error:
                    answer = f"{type(error).__name__} {error.reason}"
                await internal.send(f"{answer}\\n".encode())

    async def who(self):
        session = self.session
        return f"{session.client_address} {session.user} {session.machine_name} {session.flags.name}"

    async def allow(self, port):
        self.grant = self.session.allow_connect("127.0.0.1", int(port), parent=self.connection)
        return f"{self.grant.active} {self.grant.uses}"

    async def grants(self):
        return f"{self.grant.active} {self.grant.uses}"

    async def cancel(self):
        self.grant.cancel()
        return f"{self.grant.active}"

    async def redirect(self, port):
        self.grant, = await self.session.redirect_connections(
            [("127.0.0.1", int(port))], parent=self.connection)
        return "%s %d" % self.grant.socket_name

    async def factory(self, port):
        self.grant = self.session.set_data_filter_factory(EventKind.CONNECT, Shout, port=int(port))
        return f"{self.grant.active}"

    async def attach(self, name):
        self.session.attach_filter(name)
        return "attached"

    async def check(self, protocol, host):
        decision = await self.session.check_access(protocol, host)
        return f"{decision.allowed} {decision.reason} {decision.rule}"

    async def resolve(self, name):
        return " ".join(await self.session.resolve(name))

    async def names(self, address):
        return " ".join(await self.session.resolve_address(address))

    async def kill(self):
        self.connection.kill()

    async def block(self):
        return await self.context.run_blocking(lambda: "from a thread")

    async def alert(self):
        for number in range(1000):
            self.context.alert("too many", number=number)
        return "told"

class Joined(SessionFilter):
    def __init__(self, firewall):
        self.firewall = firewall

    async def on_connect(self, event):
        event.connection.attach_data_filter(Console(), context=self.firewall)

class Mine(ApplicationFilter):
    async def start(self, firewall):
        self.firewall = firewall

    def session_filter(self, session):
        return Joined(self.firewall)
"""


@pytest.fixture
def console() -> Iterator[int]:
    """The port of a server on connections to which the console sits."""
    with echo_server() as port:
        yield port


def policy_for(console: int, *, alone: bool = False) -> str:
    """`alone`: rules open nothing but the console, so that whatever else is open was promised."""
    policy = POLICY.replace('use = "mine.py"\n', f'use = "mine.py"\nprotocols = ["tcp/{console}"]\n')
    return policy.replace('protocols = ["any"]', f'protocols = ["tcp/{console}"]') if alone else policy


class Client:
    """Of the console."""

    def __init__(self, firewall: RunningFirewall, console: int) -> None:
        self.firewall = firewall
        self._sock = socks5(firewall.port, console)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._sock.close()

    def ask(self, line: str) -> str:
        """Raises ConnectionResetError if the connection has been killed."""
        self._sock.sendall(f"{line}\n".encode())
        answer = b""
        while not answer.endswith(b"\n"):
            data = self._sock.recv(1000)
            assert data, f"ended after {answer!r}"
            answer += data
        return answer.decode().strip()

    def echoes(self, port: int, expected: bytes = b"hello") -> None:
        with socks5(self.firewall.port, port) as sock:
            sock.sendall(b"hello")
            assert exactly(sock, 5) == expected

    def is_refused(self, port: int) -> bool:
        try:
            socks5(self.firewall.port, port).close()
        except Refused:
            return True
        return False


def test_allow_connect_opens_one_port_once_and_ends_with_its_parent(
    start_firewall: StartFirewall, console: int
) -> None:
    firewall = start_firewall(policy_for(console, alone=True), files=files(CONSOLE))
    with echo_server() as port, Client(firewall, console) as client:
        assert client.is_refused(port)
        assert client.ask(f"allow {port}") == "True 0"
        assert client.is_refused(port + 1 if port < 65_535 else port - 1)
        client.echoes(port)
        assert client.ask("grants") == "False 1"
        assert client.is_refused(port)
        client.ask(f"allow {port}")
        assert client.ask("cancel") == "False"
        assert client.is_refused(port)
        client.ask(f"allow {port}")
        with pytest.raises(ConnectionResetError):
            client.ask("kill")
        assert client.is_refused(port)
    [granted] = firewall.wait_for_records(1, lambda record: record.reason == "granted")
    [parent] = firewall.wait_for_records(1, lambda record: record.end == "killed")
    assert (granted.parent, granted.port) == (parent.connection, port)
    secondary = [line for line in heard(firewall, times=2) if line.get("secondary")]
    assert [line["what"] for line in secondary] == ["connect"]


def test_redirect_connections_leads_the_client_by_a_port_of_ours(
    start_firewall: StartFirewall, console: int
) -> None:
    firewall = start_firewall(policy_for(console), files=files(CONSOLE))
    with echo_server() as port, Client(firewall, console) as client:
        host, ours = client.ask(f"redirect {port}").split()
        with socket.create_connection((host, int(ours)), PATIENCE_S) as sock:
            sock.sendall(b"hello")
            assert exactly(sock, 5) == b"hello"
        assert client.ask("grants") == "False 1"
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((host, int(ours)), PATIENCE_S)
    [record] = firewall.wait_for_records(1, lambda record: record.entry == "redirect")
    assert (record.port, record.reason) == (port, "granted")


def test_a_factory_attaches_a_data_filter_to_what_comes_next(
    start_firewall: StartFirewall, console: int
) -> None:
    firewall = start_firewall(policy_for(console), files=files(CONSOLE))
    with echo_server() as port, Client(firewall, console) as client:
        client.echoes(port)
        assert client.ask(f"factory {port}") == "True"
        client.echoes(port, b"HELLO")
        client.echoes(port)


OTHER = """
from doorward.api import ApplicationFilter, Interest, SessionFilter

class Other(ApplicationFilter):
    interest = Interest.of("tcp/1")

    async def start(self, firewall):
        self.firewall = firewall

    def session_filter(self, session):
        self.firewall.log("joined", client=session.client_address)
        return SessionFilter()
"""


def test_a_filter_may_have_another_join_a_session(start_firewall: StartFirewall, console: int) -> None:
    policy = policy_for(console) + '[[filter]]\nname = "other"\nuse = "other.py"\n'
    firewall = start_firewall(policy, files=files(CONSOLE) | {"other.py": OTHER})
    with Client(firewall, console) as client:
        assert firewall.events("joined") == []
        assert client.ask("attach other") == "attached"
        assert client.ask("attach other") == "attached"
        assert client.ask("attach nobody") == "NotFound not_found"
    assert [line["client"] for line in firewall.events("joined")] == ["127.0.0.1"]


def test_a_filter_asks_policy_names_and_who_is_there(start_firewall: StartFirewall, console: int) -> None:
    firewall = start_firewall(policy_for(console, alone=True), files=files(CONSOLE))
    with Client(firewall, console) as client:
        assert client.ask("who") == "127.0.0.1 None None NONE"
        assert client.ask(f"check tcp/{console} localhost") == "True rule_allow everything here"
        assert client.ask("check tcp/80 169.254.169.254").startswith("False ")
        assert "127.0.0.1" in client.ask("resolve localhost").split()
        assert client.ask("names 127.0.0.1")
        assert client.ask("resolve no-such-host.invalid") == "NameNotFound name_not_found"
    told = [line for line in firewall.events("heard") if line["what"] == "resolve"]
    assert {(line["name"], line["before"]) for line in told} >= {("localhost", True), ("localhost", False)}
    assert [line["before"] for line in told if line["address"] == "127.0.0.1"] == [True, False]


def test_a_filter_may_block_in_a_thread_and_call_for_attention_once(
    start_firewall: StartFirewall, console: int
) -> None:
    firewall = start_firewall(policy_for(console), files=files(CONSOLE))
    with Client(firewall, console) as client:
        assert client.ask("block") == "from a thread"
        assert client.ask("alert") == "told"
        assert len([line for line in firewall.told() if line.get("alert") == "too many"]) == 1


RENAME = """
from doorward.api import ApplicationFilter, EventKind, Interest, SessionFilter

class Joined(SessionFilter):
    async def on_resolve(self, event):
        if event.name == "api.example" and event.before:
            event.set_result("127.0.0.1")
        if event.name == "gone.example":
            event.deny("not_any_more")
        if event.name == "metadata.example":
            event.set_result("169.254.169.254")

class Mine(ApplicationFilter):
    interest = Interest.of(events=[EventKind.RESOLVE])

    def session_filter(self, session):
        return Joined()
"""


def test_a_name_is_led_elsewhere_by_policys_leave_only(start_firewall: StartFirewall) -> None:
    firewall = start_firewall(POLICY, files=files(RENAME))
    with echo_server() as port:
        for dial in (socks5, connect):
            with dial(firewall.port, port, "api.example") as sock:
                sock.sendall(b"hello")
                assert exactly(sock, 5) == b"hello"
        with pytest.raises(Refused) as refused:
            socks5(firewall.port, port, "gone.example")
        assert refused.value.args == (4,)  # host unreachable
        with pytest.raises(Refused):
            socks5(firewall.port, port, "metadata.example")
    reasons = {(r.host, r.reason) for r in firewall.wait_for_records(4)}
    assert reasons == {
        ("api.example", "rule_allow"),
        ("gone.example", "not_any_more"),
        ("metadata.example", "guarded_metadata"),
    }


BY_RULE = """
from doorward.api import ApplicationFilter, SessionFilter

class Joined(SessionFilter):
    async def on_connect(self, event):
        if event.settings["word"] in event.host:
            event.connection.deny("word_in_name")

class Mine(ApplicationFilter):
    def compile_settings(self, settings):
        return {"word": str(settings["word"])}

    def session_filter(self, session):
        return Joined()
"""


def test_a_filter_finds_its_settings_for_the_rule_on_the_event(start_firewall: StartFirewall) -> None:
    with echo_server() as port, echo_server() as other:
        by_rule = f"""
[[rule]]
name = "strict"
action = "allow"
to = ["127.0.0.0/8", "::1"]
protocols = ["tcp/{port}"]
filters.mine = {{ word = "local" }}
"""
        policy = POLICY.replace("[[rule]]", by_rule + "[[rule]]", 1)
        policy = policy.replace('use = "mine.py"\n', 'use = "mine.py"\nsettings = { word = "nothing" }\n')
        firewall = start_firewall(policy, files=files(BY_RULE))
        socks5(firewall.port, other, "localhost").close()
        with pytest.raises(Refused):
            socks5(firewall.port, port, "localhost")
        firewall.rewrite_policy(policy.replace('word = "local"', 'word = "x"'))
        firewall.hang_up()
        socks5(firewall.port, port, "localhost").close()
        reasons = [(record.rule, record.reason) for record in firewall.wait_for_records(3)]
    assert sorted(reasons, key=str) == [
        ("everything here", "rule_allow"),
        ("strict", "rule_allow"),
        ("strict", "word_in_name"),
    ]
