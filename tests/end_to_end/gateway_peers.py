"""Programs for both ends of a gateway's wires, and the table of a packet filter that leads everything to the service.

python -m tests.end_to_end.gateway_peers serve|web|names|ftp|ask|exchange|flood|invent|fragment …
"""

from __future__ import annotations

import hashlib
import http.server
import os
import select
import socket
import struct
import sys
from collections.abc import Callable
from typing import Final

import dns.message
import dns.rrset

from doorward.packetfilter.model import MARK

PORT: Final = 1081
ECHO: Final = 9000
"""Answers with the address that it sees, and what it was sent."""
DATAGRAM_BYTES: Final = 4000  # three fragments on these wires
WAIT_S: Final = 5.0
FILE_BYTES: Final = 3_000_000

FAMILY: Final = {4: socket.AF_INET, 6: socket.AF_INET6}

# What a compiled policy that settles nothing in the kernel looks like, written by hand.
TABLE: Final = """
table inet doorward {{
  chain prerouting {{
    type filter hook prerouting priority mangle; policy accept;
    socket transparent 1 socket wildcard 0 meta mark set {mark:#x} accept
    iifname "inner" meta l4proto icmpv6 accept
    iifname "inner" ip saddr != 10.1.0.0/24 drop
    iifname "inner" ip6 saddr != fd01::/64 drop
    fib daddr type local {own}
    iifname "inner" meta l4proto tcp {tcp}
    iifname "inner" meta nfproto ipv4 meta l4proto udp tproxy ip to :{port} meta mark set {mark:#x} accept
    iifname "inner" meta nfproto ipv6 meta l4proto udp tproxy ip6 to :{port} meta mark set {mark:#x} accept
    iifname "inner" meta l4proto tcp reject with tcp reset
    iifname "inner" meta l4proto udp reject with icmpx port-unreachable
    iifname "inner" drop
  }}
  chain redirecting {{
    type nat hook prerouting priority dstnat; policy accept;
    {redirect}
  }}
  chain forward {{ type filter hook forward priority filter; policy drop; }}
}}
"""
_TPROXY: Final = (
    "meta nfproto ipv4 tproxy ip to :{port} meta mark set {mark:#x} accept\n"
    '    iifname "inner" meta nfproto ipv6 meta l4proto tcp tproxy ip6 to :{port} meta mark set {mark:#x} accept'
)


def table(method: str = "tproxy", *, own: str = "accept") -> str:
    """For `nft -f`. `own` is what happens to packets for the gateway's own addresses."""
    redirect = ""
    tcp = _TPROXY.format(port=PORT, mark=MARK)
    if method == "redirect":
        tcp = "accept"
        redirect = f'iifname "inner" fib daddr type != local meta l4proto tcp redirect to :{PORT}'
    return TABLE.format(mark=MARK, port=PORT, tcp=tcp, redirect=redirect, own=own)


def serve(*places: str) -> None:
    """Answer at each of these addresses, TCP and UDP."""
    socks: list[socket.socket] = []
    for host in places:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        socks.append(socket.create_server((host, ECHO), family=family, backlog=512))
        udp = socket.socket(family, socket.SOCK_DGRAM)
        udp.bind((host, ECHO))
        socks.append(udp)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while True:
        for sock in select.select(socks, [], [])[0]:
            if sock.type == socket.SOCK_STREAM:
                peer, name = sock.accept()
                peer.settimeout(WAIT_S)
                with peer:
                    peer.sendall(f"{name[0]} ".encode() + peer.recv(100))
            else:
                data, name = sock.recvfrom(65_536)
                sock.sendto(f"{name[0]} ".encode() + data, name)


def web() -> None:
    """One page, at port 8000 of every address."""
    page = b"page\n"

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, *arguments: object) -> None:
            """Nothing."""

    class Server(http.server.ThreadingHTTPServer):
        address_family = socket.AF_INET6

    server = Server(("::", 8000), Page)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    server.serve_forever()


def names() -> None:
    """A name server to which every name has the same address."""
    tcp = socket.create_server(("10.2.0.2", 53))
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind(("10.2.0.2", 53))
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while True:
        for sock in select.select([tcp, udp], [], [])[0]:
            if sock is udp:
                data, name = udp.recvfrom(65_536)
                udp.sendto(_answer(data), name)
            else:
                peer, _ = tcp.accept()
                with peer:
                    peer.settimeout(WAIT_S)
                    answer = _answer(peer.recv(65_536)[2:])
                    peer.sendall(len(answer).to_bytes(2, "big") + answer)


def ftp(host: str) -> None:
    """A server for one client, in active mode; as most do, it connects when the file is asked for, and not before."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, 21), family=family)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    peer, _ = listener.accept()
    with peer, peer.makefile("rw", newline="") as talk:
        where, line = ("", 0), "220 here"
        while line:
            talk.write(f"{line}\r\n")
            talk.flush()
            command, _, argument = talk.readline().strip().partition(" ")
            if command == "PORT":
                numbers = argument.split(",")
                where = (".".join(numbers[:4]), int(numbers[4]) * 256 + int(numbers[5]))
            elif command == "EPRT":
                where = (argument.split("|")[2], int(argument.split("|")[3]))
            elif command == "RETR":
                talk.write("150 here it comes\r\n")
                talk.flush()
                with socket.create_connection(where, WAIT_S, (host, 0)) as data:
                    data.sendall(b"x" * FILE_BYTES)
            line = {"": "", "RETR": "226 done", "PASS": "230 in"}.get(command, "200 yes")


def _answer(data: bytes) -> bytes:
    query = dns.message.from_wire(data)
    answer = dns.message.make_response(query)
    answer.answer.append(dns.rrset.from_text(query.question[0].name, 60, "IN", "A", "192.0.2.77"))
    return answer.to_wire()


def ask(kind: str, host: str, port: str, source: str = "", bytes_: str = "5", wait_s: str = "5") -> str:
    """What a client gets there: the answer, or the name of the error."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    data = (b"hello" * (int(bytes_) // 5 + 1))[: int(bytes_)]
    with socket.socket(family, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM) as sock:
        sock.settimeout(float(wait_s))
        try:
            if source:
                sock.bind((source, 0))
            sock.connect((host, int(port)))
            sock.send(data)
            answer = b""
            while more := sock.recv(65_536):
                answer += more
                if kind == "udp":
                    break
        except OSError as error:
            return type(error).__name__
    address, _, said = answer.partition(b" ")
    return address.decode() if said == data[:100] or said == data else f"{address!r} {len(said)}"


def exchange(host: str) -> str:
    """As QUIC does: one socket, a thousand datagrams of 1200 bytes; at first one in flight, then more and more."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    waiting: dict[bytes, bytes] = {}
    sent, window = 0, 1
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.settimeout(WAIT_S)
        sock.connect((host, ECHO))
        while sent < 1000 or waiting:
            while sent < 1000 and len(waiting) < window:
                payload = os.urandom(1168) + hashlib.sha256(str(sent).encode()).digest()
                waiting[payload[-32:]] = payload
                sock.send(payload)
                sent += 1
            answer = sock.recv(65_536).partition(b" ")[2]
            if waiting.pop(answer[-32:]) != answer:
                return "changed on the way"
            window = min(window + 1, 20)
    return "all"


def flood(host: str, first: str, count: str) -> str:
    """Datagrams to so many ports, none of which answers."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        for port in range(int(first), int(first) + int(count)):
            try:
                sock.sendto(b"x", (host, port))
            except OSError:
                pass
    return "done"


def invent(network: str, host: str, count: str) -> str:
    """Datagrams from so many sources, address and port, none of which is anybody's."""
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
        for number in range(int(count)):
            source = socket.inet_aton(f"{network}.{number % 250 + 4}")
            udp = struct.pack(">HHHH", 1024 + number // 250, ECHO, 13, 0) + b"hello"
            head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0, 64, socket.IPPROTO_UDP, 0)
            sock.sendto(head + source + socket.inet_aton(host) + udp, (host, 0))
    return "done"


def fragment(source: str, host: str, count: str) -> str:
    """So many beginnings of datagrams that never end."""
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
        for number in range(int(count)):
            udp = struct.pack(">HHHH", 1024, ECHO, 4000, 0) + bytes(1000)
            more = 0x2000
            head = struct.pack(
                ">BBHHHBBH", 0x45, 0, 20 + len(udp), number + 1, more, 64, socket.IPPROTO_UDP, 0
            )
            sock.sendto(head + socket.inet_aton(source) + socket.inet_aton(host) + udp, (host, 0))
    return "done"


SERVERS: Final[dict[str, Callable[..., None]]] = {"serve": serve, "web": web, "names": names, "ftp": ftp}
CLIENTS: Final[dict[str, Callable[..., str]]] = {
    "ask": ask,
    "exchange": exchange,
    "flood": flood,
    "invent": invent,
    "fragment": fragment,
}


def main(what: str, *words: str) -> None:
    if what in SERVERS:
        SERVERS[what](*words)
    else:
        sys.stdout.write(CLIENTS[what](*words))


if __name__ == "__main__":
    main(*sys.argv[1:])
