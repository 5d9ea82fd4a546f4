"""FTP in active mode across a gateway: the server comes in by a hole that is made for it, and by no other."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest
from tests.end_to_end.conftest import StartFirewall
from tests.end_to_end.gateway_peers import FILE_BYTES
from tests.end_to_end.gateways import HEAD, Gateway, gateways
from tests.end_to_end.running import wait_for
from tests.end_to_end.wires import OTHER, OUTSIDE, SERVER, why_not

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not())

POLICY = f"""{HEAD}
[[filter]]
name = "ftp"
use = "ftp"
[[rule]]
name = "ftp only"
action = "allow"
to = ["{SERVER[4]}", "{SERVER[6]}"]
protocols = ["ftp"]
"""

# Says "open" once the server has been told where to connect, and waits for a line before it has it do so.
CLIENT = """
import ftplib, sys
ftp = ftplib.FTP()
ftp.connect(sys.argv[1], 21, 10)
ftp.login()
ftp.set_pasv(False)
ftp.voidcmd("TYPE I")
with ftp.makeport() as listener:
    print("open", flush=True)
    sys.stdin.readline()
    ftp.sendcmd("RETR file")
    data, _ = listener.accept()
    count = 0
    while more := data.recv(65536):
        count += len(more)
    data.close()
ftp.voidresp()
print(count, flush=True)
sys.stdin.readline()
"""
# What listens in this network, and what a scan of all ports of an address finds.
LISTENING = """
import json
found = []
for kind in ("tcp", "tcp6"):
    for line in open(f"/proc/net/{kind}").readlines()[1:]:
        words = line.split()
        if words[3] == "0A":
            found.append(int(words[1].rpartition(":")[2], 16))
print(json.dumps(sorted(set(found))))
"""
SCAN = """
import json, socket, sys
found = []
for port in range(1, 65536):
    with socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET) as sock:
        sock.settimeout(2)
        if sys.argv[2]:
            sock.bind((sys.argv[2], 0))
        if not sock.connect_ex((sys.argv[1], port)):
            try:
                sock.recv(1)
                found.append(port)
            except ConnectionResetError:
                pass
            except TimeoutError:
                found.append(port)
print(json.dumps(found))
"""


@pytest.fixture
def gateway(start_firewall: StartFirewall) -> Iterator[Gateway]:
    with gateways(start_firewall) as found:
        yield found


def listening(gateway: Gateway) -> set[int]:
    done = gateway.wires.run("gateway", sys.executable, "-c", LISTENING)
    return set(json.loads(done.stdout))


def scan(gateway: Gateway, host: str, source: str = "") -> set[int]:
    """Which ports of the gateway's take a connection from the server's side and keep it."""
    done = gateway.wires.run("server", sys.executable, "-c", SCAN, host, source)
    return set(json.loads(done.stdout))


@pytest.mark.parametrize("version", [4, 6])
def test_the_hole_is_for_the_server_and_for_one_transfer(gateway: Gateway, version: int) -> None:
    gateway.wires.serve("server", *gateway.command("ftp", SERVER[version]))
    firewall = gateway.firewall(POLICY)
    before = listening(gateway)
    client = subprocess.Popen(
        [*gateway.wires.enter("client"), sys.executable, "-c", CLIENT, SERVER[version]],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert client.stdin is not None
        assert client.stdout is not None
        assert client.stdout.readline() == "open\n"
        (hole,) = listening(gateway) - before
        # Everybody else on that side finds nothing, at any port; nor does the server at another one.
        assert scan(gateway, OUTSIDE[version], OTHER[version]) == set()
        client.stdin.write("go\n")
        client.stdin.flush()
        assert client.stdout.readline() == f"{FILE_BYTES}\n"
        wait_for(lambda: listening(gateway) == before, "the hole is gone")
        assert scan(gateway, OUTSIDE[version]) == set()
        client.stdin.write("end\n")
        client.stdin.flush()
        client.wait(10)
    finally:
        client.kill()
        client.communicate(timeout=10)
    records = firewall.wait_for_records(1, lambda r: r.operation == "accept" and r.action == "allow")
    assert (records[0].reason, records[0].address) == ("granted", SERVER[version])
    refused = firewall.wait_for_records(1, lambda r: r.operation == "accept" and r.action == "deny")
    assert {record.address for record in refused} == {OTHER[version]}
    assert hole
