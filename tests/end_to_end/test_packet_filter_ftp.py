"""FTP's active mode with a packet filter before the gateway: in the kernel, too, the hole is the server's alone."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from tests.end_to_end.conftest import StartFirewall
from tests.end_to_end.gateway_peers import FILE_BYTES
from tests.end_to_end.running import wait_for
from tests.end_to_end.test_gateway_ftp import CLIENT, POLICY
from tests.end_to_end.test_packet_filter_service import Filtered
from tests.end_to_end.wires import OTHER, OUTSIDE, SERVER, why_not, wires

from doorward.packetfilter.model import MARK, OPEN

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not())

# Knocks at every port of an address at once, and says which have answered, however they did.
SCAN: Final = """
import errno, json, select, socket, sys, time
target, source = sys.argv[1:]
found = []
for start in range(1, 65536, 8192):
    waiting = select.epoll()
    socks = {}
    for port in range(start, min(start + 8192, 65536)):
        sock = socket.socket(socket.AF_INET6 if ":" in target else socket.AF_INET)
        sock.setblocking(False)
        sock.bind((source, 0))
        sock.connect_ex((target, port))
        socks[sock.fileno()] = sock, port
        waiting.register(sock, select.EPOLLOUT | select.EPOLLERR | select.EPOLLHUP)
    end = time.monotonic() + 0.3
    while (left := end - time.monotonic()) > 0:
        for fd, _ in waiting.poll(left):
            waiting.unregister(fd)
            found.append(socks[fd][1])
    for sock, _ in socks.values():
        sock.close()
print(json.dumps(found))
"""


@pytest.fixture
def gateway(start_firewall: StartFirewall, tmp_path: Path) -> Iterator[Filtered]:
    with wires() as made:
        made.forward()
        made.lead_here(MARK)
        yield Filtered(made, start_firewall, path=tmp_path / "nft.sock")


def scan(gateway: Filtered, version: int, source: str) -> list[int]:
    command = ["sh", "-c", 'ulimit -n 20000; exec "$@"', "sh", sys.executable, "-c", SCAN]
    found: list[int] = json.loads(gateway.wires.run("server", *command, OUTSIDE[version], source).stdout)
    return found


def openings(gateway: Filtered, version: int) -> list[str]:
    listed = json.loads(
        gateway.wires.run("gateway", "nft", "-j", "list", "set", "inet", "doorward", OPEN[version]).stdout
    )
    return [str(element["elem"]["val"]["concat"]) for element in listed["nftables"][1]["set"].get("elem", [])]


@pytest.mark.parametrize("version", [4, 6])
def test_the_hole_is_in_the_kernel_for_the_server_and_for_one_transfer(
    gateway: Filtered, version: int
) -> None:
    gateway.wires.serve("server", *gateway.command("ftp", SERVER[version]))
    policy = POLICY.replace("[transparent]\n", f'[transparent]\npacket_filter = "{gateway.path}"\n')
    gateway._start(policy, prefix=gateway.wires.enter("gateway"))
    assert openings(gateway, version) == []
    client = subprocess.Popen(
        [*gateway.wires.enter("client"), sys.executable, "-c", CLIENT, SERVER[version]],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert client.stdin is not None
        assert client.stdout is not None
        assert client.stdout.readline() == "open\n"
        (hole,) = openings(gateway, version)
        assert hole.startswith(f"['{SERVER[version]}', 'tcp', '{OUTSIDE[version]}', ")
        assert scan(gateway, version, OTHER[version]) == [], "not even a refusal"
        client.stdin.write("go\n")
        client.stdin.flush()
        assert client.stdout.readline() == f"{FILE_BYTES}\n"
        wait_for(lambda: openings(gateway, version) == [], "the hole is gone")
        assert scan(gateway, version, SERVER[version]) == []
        client.stdin.write("end\n")
        client.stdin.flush()
        client.wait(10)
    finally:
        client.kill()
        client.communicate(timeout=10)
