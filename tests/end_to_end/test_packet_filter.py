"""The packet filter in a kernel: what is settled there, what comes up, and that it is closed without us."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from ipaddress import ip_network
from pathlib import Path
from typing import Final

import pytest
from tests.end_to_end.gateway_peers import ECHO, PORT
from tests.end_to_end.wires import CLIENT, GATEWAY, OTHER, OUTSIDE, SERVER, Wires, why_not, wires

from doorward.packetfilter.client import HelperGone, HelperRefused
from doorward.packetfilter.compiler import compile_table
from doorward.packetfilter.model import Capture, Element
from doorward.packetfilter.upkeep import PacketFilter
from doorward.policy.evaluation import Policy
from doorward.policy.model import Action, PortRange, Rule

pytestmark = [pytest.mark.anyio, pytest.mark.skipif(bool(why_not()), reason=why_not())]

CAPTURE: Final = Capture(
    networks=("10.1.0.0/24", "fd01::/64"), interfaces=("inner",), tcp_port=PORT, udp_port=PORT
)
BOTH: Final = tuple(map(ip_network, (f"{SERVER[4]}/32", f"{SERVER[6]}/128")))
ALLOWED: Final = Rule("the server", Action.ALLOW, 1, to_networks=BOTH)
NAMED: Final = Rule("by name", Action.ALLOW, 2, to_names=("example.org",), ports=(PortRange("tcp", 80, 80),))
# TCP is reset; UDP hears of ICMP "administratively prohibited", which Linux tells programs in these words.
PROHIBITED: Final = {
    ("tcp", 4): "ConnectionRefusedError",
    ("tcp", 6): "ConnectionRefusedError",
    ("udp", 4): "OSError",
    ("udp", 6): "PermissionError",
}
EVERYBODY: Final = {4: ("0.0.0.0", "255.255.255.255"), 6: ("::", "ffff:" * 7 + "ffff")}


class Helped:
    """Wires whose gateway has a helper, and a packet filter that speaks to it."""

    def __init__(self, made: Wires, path: Path) -> None:
        self.wires = made
        self.path = path
        self.said: list[str] = []
        self.filter = PacketFilter(path, self.said.append)
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "doorward", "packet-filter", "--socket", str(self.path)]
        self.helper = self.wires.start("gateway", *command, "--user", str(os.getuid()))
        assert self.helper.stdout is not None
        said = self.helper.stdout.readline()
        assert b"answers user" in said, said + self.helper.stdout.read()

    def peers(self, where: str, *words: str) -> str:
        command = [sys.executable, "-m", "tests.end_to_end.gateway_peers", *words]
        return self.wires.run(where, *command).stdout  # type: ignore[arg-type]

    def ask(self, kind: str, host: str, port: int = ECHO) -> str:
        return self.peers("client", "ask", kind, host, str(port))

    def ruleset(self, *words: str) -> str:
        return self.wires.run("gateway", "nft", "list", *words).stdout

    def serve(self) -> None:
        command = [sys.executable, "-m", "tests.end_to_end.gateway_peers", "serve"]
        self.wires.serve("server", *command, *SERVER.values(), *OTHER.values())

    async def put(self, *rules: Rule, capture: Capture = CAPTURE) -> None:
        table = compile_table(Policy(rules, "r"), capture)
        if self.filter.table is None:
            await self.filter.start(table)
        else:
            await self.filter.load(table)

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(self.filter.run())
            try:
                yield
            finally:
                task.cancel()


@pytest.fixture
async def helped(tmp_path: Path) -> AsyncIterator[Helped]:
    with wires() as made:
        made.forward()
        made.lead_here(CAPTURE.mark)
        found = Helped(made, tmp_path / "nft.sock")
        yield found
        found.filter.end()


async def test_what_the_policy_settles_passes_without_a_service_and_all_else_does_not(helped: Helped) -> None:
    helped.serve()
    await helped.put(Rule("no 9", Action.DENY, 0, ports=(PortRange("tcp", 9, 9),)), ALLOWED, NAMED)
    for version in (4, 6):
        for kind in ("tcp", "udp"):
            assert helped.ask(kind, SERVER[version]) == OUTSIDE[version], "masqueraded, as ours would be"
            assert helped.ask(kind, OTHER[version]) == PROHIBITED[kind, version], "the default, said aloud"
        assert helped.ask("tcp", SERVER[version], 9) == "ConnectionRefusedError"
        assert helped.ask("tcp", OTHER[version], 80) == "ConnectionRefusedError", "nobody is there to ask"
    table = helped.filter.table
    assert table is not None
    counts = await helped.filter.count()
    named = {str(o.rule): counts.get(f"o{at}", 0) for at, o in enumerate(table.outcomes)}
    assert (named["the server"], named["no 9"], counts["unanswered"]) == (4, 2, 2)
    assert named["None"] >= 4


async def test_a_new_table_holds_for_flows_that_exist(helped: Helped) -> None:
    helped.wires.serve("server", sys.executable, "-c", ECHOING)
    await helped.put(ALLOWED)
    script = (
        "import socket,sys\n"
        f"s=socket.create_connection(('{SERVER[4]}',5000),5)\n"
        "s.sendall(b'one'); s.recv(99); print('ready',flush=True); sys.stdin.readline()\n"
        "try:\n s.sendall(b'two'); print('got', len(s.recv(99)))\n"
        "except OSError as error: print(type(error).__name__)\n"
    )
    command = [*helped.wires.enter("client"), sys.executable, "-c", script]
    with subprocess.Popen(  # noqa: ASYNC220  # nobody else is in this loop
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "ready\n"
        await helped.put()
        said, _ = program.communicate("\n", 10)
    assert said.strip() == "ConnectionResetError"


async def test_an_opening_is_for_exactly_this_peer_and_port_and_gone_afterwards(helped: Helped) -> None:
    helped.wires.serve("gateway", sys.executable, "-c", LISTENER)
    await helped.put(ALLOWED)
    hole = Element("tcp", SERVER[4], SERVER[4], OUTSIDE[4], 5000)
    async with helped.kept():
        assert knock(helped, SERVER[4]) == knock(helped, OTHER[4]) == {}
        assert "elements" not in helped.ruleset("set", "inet", "doorward", "open4")
        await helped.filter.open(hole)
        listed = helped.ruleset("set", "inet", "doorward", "open4")
        assert f"{SERVER[4]} . tcp . {OUTSIDE[4]} . 5000" in listed
        assert "timeout 30s" in listed
        assert knock(helped, SERVER[4]) == {5000: "open"}
        assert knock(helped, OTHER[4]) == {}, "nobody else, and nothing else"
        await helped.filter.open(hole)
        helped.filter.close(hole)
        assert knock(helped, SERVER[4]) == {5000: "open"}, "somebody else still wants it"
        helped.filter.close(hole)
        await gone(helped)
        assert knock(helped, SERVER[4]) == {}


async def test_openings_end_with_the_service_and_come_back_with_the_helper(helped: Helped) -> None:
    helped.wires.serve("gateway", sys.executable, "-c", LISTENER)
    await helped.put(ALLOWED)
    hole = Element("tcp", *EVERYBODY[6], None, 5000)
    async with helped.kept():
        await helped.filter.open(hole)
        helped.helper.send_signal(signal.SIGKILL)
        helped.helper.wait()
        assert "table inet doorward" in helped.ruleset("tables"), "the table stays"
        assert knock(helped, SERVER[6], OUTSIDE[6]) == {5000: "open"}
        await until(helped, lambda: not helped.filter.answers or None)
        with pytest.raises(HelperGone):
            await helped.filter.open(Element("tcp", *EVERYBODY[4], None, 5001))
        helped.start()
        await until(helped, lambda: helped.filter.answers or None)
        assert "tcp . ::/0 . 5000" in helped.ruleset("set", "inet", "doorward", "open6")
        assert knock(helped, SERVER[6], OUTSIDE[6]) == {5000: "open"}
    await gone(helped, "open6")
    assert knock(helped, SERVER[6], OUTSIDE[6]) == {}, "the service has gone"


async def test_openings_that_overlap_are_refused_and_harm_nobody(helped: Helped) -> None:
    await helped.put(ALLOWED)
    everybody, one = (
        Element("udp", *EVERYBODY[4], None, 5000),
        Element("udp", SERVER[4], SERVER[4], None, 5000),
    )
    async with helped.kept():
        await helped.filter.open(everybody)
        with pytest.raises(HelperRefused):
            await helped.filter.open(one)
        many = [Element("udp", SERVER[4], SERVER[4], None, port) for port in range(6000, 6200)]
        await asyncio.gather(*map(helped.filter.open, many))
        assert helped.ruleset("set", "inet", "doorward", "open4").count(". udp .") == 201
        for element in (everybody, *many):
            helped.filter.close(element)
        await gone(helped)


async def test_who_is_not_the_service_is_not_listened_to(helped: Helped) -> None:
    with pytest.raises(PermissionError) if os.geteuid() else pytest.raises(HelperGone):
        helped.helper.kill()
        helped.helper.wait()
        command = [sys.executable, "-m", "doorward", "packet-filter", "--socket", str(helped.path), "--user"]
        helper = helped.wires.start("gateway", *command, str(os.getuid() + 1))
        assert helper.stdout is not None
        helper.stdout.readline()
        await helped.put(ALLOWED)


async def test_packets_that_come_from_the_wrong_side_are_dropped(helped: Helped) -> None:
    helped.serve()
    await helped.put(Rule("all", Action.ALLOW, 1))
    helped.wires.ip("client", "addr", "add", "10.9.0.2/32", "dev", "eth0")
    helped.wires.ip("gateway", "route", "add", "10.9.0.2/32", "dev", "inner")
    assert knock(helped, "10.9.0.2", SERVER[4], "client", ECHO) == {}
    helped.wires.ip("server", "addr", "add", "10.1.0.77/32", "dev", "eth0")
    assert knock(helped, "10.1.0.77", CLIENT[4], "server", ECHO) == {}
    assert knock(helped, SERVER[4], CLIENT[4], "server", ECHO) == {}, "nothing comes in"
    counts = await helped.filter.count()
    assert counts["spoofed"] == 2
    assert counts["outside"] >= 1


async def test_an_address_of_the_gateway_is_open_only_to_whom_a_rule_names_it(helped: Helped) -> None:
    helped.wires.serve("gateway", sys.executable, "-c", LISTENER)
    await helped.put(Rule("all", Action.ALLOW, 1))
    assert knock(helped, CLIENT[4], GATEWAY[4], "client") == {}
    await helped.put(Rule("manage", Action.ALLOW, 1, to_networks=(ip_network(f"{GATEWAY[4]}/32"),)))
    assert knock(helped, CLIENT[4], GATEWAY[4], "client") == {5000: "open", 5001: "open"}
    assert helped.ask("tcp", OUTSIDE[4], 5000) == "ConnectionRefusedError"


async def test_loading_again_and_again_never_opens_anything(helped: Helped) -> None:
    """A program knocks all the while; what it must not reach, it never reaches."""
    helped.wires.serve("server", sys.executable, "-c", ECHOING)
    await helped.put(ALLOWED)
    script = (
        "import socket,sys,time\nend=time.monotonic()+1.5\nn=0\n"
        "while time.monotonic()<end:\n"
        " s=socket.socket(); s.settimeout(0.2); n+=1\n"
        f" try: s.connect(('{OTHER[4]}',{ECHO})); print('open'); break\n"
        " except OSError: pass\n finally: s.close()\n"
        "print(n)"
    )
    with subprocess.Popen(  # noqa: ASYNC220  # nobody else is in this loop
        [*helped.wires.enter("client"), sys.executable, "-c", script], stdout=subprocess.PIPE, text=True
    ) as program:
        while program.poll() is None:
            await helped.put(ALLOWED)
            await helped.put(NAMED)
        assert program.stdout is not None
        said = program.stdout.read().split()
    assert len(said) == 1
    assert int(said[0]) > 50


LISTENER: Final = """
import socket, select
found = []
for port in (5000, 5001):
    for family, host in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
        found.append(socket.create_server((host, port), family=family))
print("ready", flush=True)
while True:
    for ready in select.select(found, [], [])[0]:
        ready.accept()[0].close()
"""
ECHOING: Final = """
import socket
listener = socket.create_server(("", 5000))
print("ready", flush=True)
sock, _ = listener.accept()
while data := sock.recv(99):
    sock.sendall(data)
"""
KNOCK: Final = """
import socket, sys
source, target, *more = sys.argv[1:]
for port in map(int, more or (22, 80, 1081, 5000, 5001)):
    s = socket.socket(socket.AF_INET6 if ":" in source else socket.AF_INET)
    s.settimeout(0.15)
    s.bind((source, 0))
    try:
        s.connect((target, port))
        print(port, "open")
    except (TimeoutError, ConnectionRefusedError):
        pass
    s.close()
"""


def knock(
    helped: Helped, source: str, target: str = OUTSIDE[4], where: str = "server", *more: int
) -> dict[int, str]:
    """The ports of the gateway that answer."""
    said = helped.wires.run(where, sys.executable, "-c", KNOCK, source, target, *map(str, more)).stdout  # type: ignore[arg-type]
    return {int(line.split()[0]): line.split()[1] for line in said.splitlines()}


async def gone(helped: Helped, name: str = "open4") -> None:
    """Nothing is open any more."""

    def looks() -> bool | None:
        return "elements" not in helped.ruleset("set", "inet", "doorward", name) or None

    await until(helped, looks)


async def until(helped: Helped, looks: Callable[[], bool | None]) -> None:
    """It is something other than None."""
    async with asyncio.timeout(5):
        while looks() is None:  # noqa: ASYNC110  # another process is waited for
            await asyncio.sleep(0.01)
