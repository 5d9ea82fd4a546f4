"""Client, gateway and server, each in a network namespace of its own; Doorward publishes the server on the gateway.

    client 10.1.0.2 ── 10.1.0.1 gateway 10.2.0.1 ── 10.2.0.2 server        fd01::, fd02:: in the same way

To be run as `unshare -Urn --kill-child python -m tests.end_to_end.routed HOME`: it is root there and nowhere else.
Prints one JSON object: what each visitor was answered, which is the address that the server saw.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.end_to_end.running import RunningFirewall

WAIT_S: Final = 10.0

# Answers everybody with the address it sees.
SERVER: Final = """
import select, socket, sys
socks = []
for family, host in ((socket.AF_INET, "10.2.0.2"), (socket.AF_INET6, "fd02::2")):
    tcp = socket.create_server((host, 9000), family=family)
    udp = socket.socket(family, socket.SOCK_DGRAM)
    udp.bind((host, 9000))
    socks += [tcp, udp]
print("ready", flush=True)
while True:
    for sock in select.select(socks, [], [])[0]:
        if sock.type == socket.SOCK_STREAM:
            peer, name = sock.accept()
            peer.recv(100)
            peer.sendall(name[0].encode())
            peer.close()
        else:
            data, name = sock.recvfrom(100)
            sock.sendto(name[0].encode(), name)
"""
CLIENT: Final = """
import socket, sys
kind, host, port = sys.argv[1:]
family = socket.AF_INET6 if ":" in host else socket.AF_INET
sock = socket.socket(family, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
sock.settimeout(8)
sock.connect((host, int(port)))
sock.send(b"who am I?")
print(sock.recv(100).decode())
"""
POLICY: Final = """
[listen]
proxy = ["127.0.0.1:1080"]
[limits]
drain_timeout_s = 1
connect_timeout_s = 5
[[publish]]
name = "kept 4"
listen = ["tcp/10.1.0.1:8000", "udp/10.1.0.1:8000"]
to = ["10.2.0.2:9000"]
from = ["10.1.0.0/24"]
mode = "keep-source"
[[publish]]
name = "kept 6"
listen = ["tcp/[fd01::1]:8000", "udp/[fd01::1]:8000"]
to = ["[fd02::2]:9000"]
from = ["fd01::/64"]
mode = "keep-source"
[[publish]]
name = "full"
listen = ["tcp/10.1.0.1:8001", "udp/10.1.0.1:8001", "tcp/[fd01::1]:8001"]
to = ["10.2.0.2:9000"]
from = ["10.1.0.0/24", "fd01::/64"]
"""
VISITS: Final = {
    "kept tcp 4": ("tcp", "10.1.0.1", "8000"),
    "kept udp 4": ("udp", "10.1.0.1", "8000"),
    "kept tcp 6": ("tcp", "fd01::1", "8000"),
    "kept udp 6": ("udp", "fd01::1", "8000"),
    "full tcp 4": ("tcp", "10.1.0.1", "8001"),
    "full udp 4": ("udp", "10.1.0.1", "8001"),
    "full tcp 6": ("tcp", "fd01::1", "8001"),
}


def ip(*words: str, inside: subprocess.Popen[bytes] | None = None) -> None:
    """One `ip` command, here or in another namespace."""
    command = ["ip", *words] if inside is None else [*_enter(inside), "ip", *words]
    subprocess.run(command, check=True, timeout=WAIT_S)


def another_namespace() -> subprocess.Popen[bytes]:
    """A process that keeps a network namespace of its own alive."""
    holder = subprocess.Popen(["unshare", "-n", "--kill-child", "sleep", "60"])
    ours, deadline = Path("/proc/self/ns/net").readlink(), time.monotonic() + WAIT_S
    while Path(f"/proc/{holder.pid}/ns/net").readlink() == ours:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return holder


def link(other: subprocess.Popen[bytes], name: str, network: int) -> None:
    """A wire to another namespace: the gateway is .1 on it, the other one .2."""
    ip("link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", str(other.pid))
    for inside, device, last in ((None, name, 1), (other, "eth0", 2)):
        ip("addr", "add", f"10.{network}.0.{last}/24", "dev", device, inside=inside)
        ip("addr", "add", f"fd0{network}::{last}/64", "dev", device, "nodad", inside=inside)
        ip("link", "set", device, "up", inside=inside)
    ip("link", "set", "lo", "up", inside=other)
    ip("route", "add", "default", "via", f"10.{network}.0.1", inside=other)
    ip("-6", "route", "add", "default", "via", f"fd0{network}::1", inside=other)


def route_back(device: str) -> None:
    """What the servers answer to clients' addresses is for this machine: docs/publishing.md."""
    for family, everything in (("-4", "0.0.0.0/0"), ("-6", "::/0")):
        ip(family, "rule", "add", "iif", device, "lookup", "100")
        ip(family, "route", "add", "local", everything, "dev", "lo", "table", "100")


def main(home: Path) -> None:
    ip("link", "set", "lo", "up")
    client, server = another_namespace(), another_namespace()
    serving = None
    try:
        link(client, "inner", 1)
        link(server, "outer", 2)
        route_back("outer")
        serving = _python(server, SERVER, ())
        assert serving.stdout is not None
        assert serving.stdout.readline() == b"ready\n"
        firewall = RunningFirewall(home, POLICY)
        try:
            answers = {name: _visit(client, visit) for name, visit in VISITS.items()}
        finally:
            firewall.end()
        sys.stdout.write(json.dumps(answers))
    finally:
        for process in (client, server, serving):
            if process is not None:
                process.kill()
                process.wait(WAIT_S)


def _visit(client: subprocess.Popen[bytes], visit: Sequence[str]) -> str:
    done = _python(client, CLIENT, visit)
    try:
        return done.communicate(timeout=WAIT_S)[0].decode().strip()
    finally:
        done.kill()


def _python(
    inside: subprocess.Popen[bytes], program: str, arguments: Sequence[str]
) -> subprocess.Popen[bytes]:
    command = [*_enter(inside), sys.executable, "-c", program, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, env={"PATH": os.environ["PATH"]})


def _enter(inside: subprocess.Popen[bytes]) -> list[str]:
    return ["nsenter", "-t", str(inside.pid), "-n", "--"]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
