"""Runs every example on live traffic: `python -m examples.run_all`. A line for each; status 1 if one does not hold.

Each check starts a firewall with the example's own policy file, sends real connections through it, and looks at
what arrived and at what was put on record.
"""

from __future__ import annotations

import smtplib
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Final

from examples.live_traffic import (
    firewall,
    receive,
    receive_all,
    receive_line,
    send_bytewise,
    server,
    tunnel,
)
from examples.no_executables import NoExecutables

from doorward.api import Refuse

EXECUTABLE: Final = (
    b"MZ".ljust(60, b"\x90") + (128).to_bytes(4, "little") + bytes(64) + b"PE\0\0" + bytes(2000)
)
BULK: Final = bytes(range(256)) * 40_000


def shout(directory: Path) -> str:
    """The answer comes in capitals, through both kinds of proxy."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello\n"
    with server(lambda client: _answer(client, {b"/": answer})) as port:
        with firewall("shout", directory) as running:
            assert _get(running.port, port, b"/").endswith(b"\r\n\r\nHELLO\n")
            assert _get_by_http_proxy(running.port, port, b"/").endswith(b"\r\n\r\nHELLO\n")
    return "a page in capitals, through SOCKS and through HTTP proxying"


def bytes_per_user(directory: Path) -> str:
    """Totals are right to the byte, and told when the firewall stops."""

    def take_and_give(client: socket.socket) -> None:
        while receive(client, 1000):
            client.sendall(BULK)

    with server(take_and_give) as port, server(take_and_give, 8100) as open_port:
        with firewall("bytes_per_user", directory) as running:
            for to, user in ((port, ("kim", "example")), (port, ("kim", "example")), (open_port, None)):
                with tunnel(running.port, to, user) as sock:
                    sock.sendall(bytes(1000))
                    assert receive(sock, len(BULK)) == BULK
                    sock.shutdown(socket.SHUT_WR)
                    assert receive_all(sock) == b""
            _until(lambda: len(running.records()) == 3)
        told = {line["user"]: line for line in running.said("bytes per user")}
    for name, times in (("kim", 2), ("127.0.0.1", 1)):
        line = told[name]
        assert (line["connections"], line["sent"], line["received"]) == (
            times,
            1000 * times,
            len(BULK) * times,
        )
    return f"{2 * len(BULK):,} bytes counted for kim, {len(BULK):,} for whoever has no name"


def no_executables(directory: Path) -> str:
    """Executables are refused however they arrive, anything else passes unchanged; split at every byte as well."""
    answers = _answers()
    for path, answer in answers.items():
        whole = _filtered(answer, len(answer))
        for size in range(1, min(len(answer), 400)):
            assert _filtered(answer, size) == whole, (
                f"{path.decode()}: split at {size} differs from the whole"
            )
    with server(lambda client: _answer(client, answers)) as port:
        with firewall("no_executables", directory) as running:
            for path, answer in answers.items():
                _check_download(running.port, port, path, answer)
            _until(lambda: len(running.records()) == 2 * len(answers))
            reasons = [(r["action"], r["reason"]) for r in running.records() if r["action"] != "allow"]
    assert set(reasons) == {("deny", "executable"), ("deny", "not_http")}, reasons
    return f"{len(answers)} kinds of answers, {len(reasons)} downloads refused"


def rewrite_word(directory: Path) -> str:
    """Three filters in a chain: rewritten both ways, whatever the pieces; the rest of the line is as it was."""

    def echo(client: socket.socket) -> None:
        send_bytewise(client, b"hello, and a prompt without an end of line> ")
        while line := receive_line(client):
            send_bytewise(client, b"you said: " + line + b"hello again, othello\n")

    with server(echo) as port:
        with firewall("rewrite_word", directory) as running:
            with tunnel(running.port, port) as sock:
                prompt = b"good day, and a prompt without an end of line> "
                assert receive(sock, len(prompt)) == prompt
                send_bytewise(sock, b"hello he hell hello\n")
                # Outward the chain ends with "day" by "evening"; inward it begins with that.
                assert receive_line(sock) == b"you said: good evening he hell good evening\n"
                assert receive_line(sock) == b"good day again, otgood day\n"
                sock.sendall(b"it ends with hel")
                sock.shutdown(socket.SHUT_WR)
                assert receive_all(sock) == b"you said: it ends with helgood day again, otgood day\n"
            _until(lambda: len(running.records()) == 1)
            record = running.records()[0]
        assert record["end"] == "closed"
        for name in ("bytes-per-user", "politeness", "evening"):
            assert name in record["filters"]
    return "a word rewritten both ways, byte by byte, by two filters behind a third"


def fake_server(directory: Path) -> str:
    """A page and a mail from servers that do not exist."""

    class Mail(smtplib.SMTP):
        def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
            return tunnel(running.port, port, host=host)

    with firewall("fake_server", directory) as running:
        with tunnel(running.port, 80, host="shop.example") as sock:
            for _ in range(2):
                send_bytewise(sock, b"GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n")
                assert receive_line(sock) == b"HTTP/1.1 200 OK\r\n"
                assert receive(sock, 61).endswith(b"\r\n\r\nclosed today\n")
        by_proxy = b"GET http://shop.example/ HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n"
        with socket.create_connection(("127.0.0.1", running.port), 10) as sock:
            sock.sendall(by_proxy)
            assert receive_all(sock).endswith(b"\r\n\r\nclosed today\n")
        with Mail("mail.example", 25) as mail:
            mail.sendmail("kim@example.org", ["lee@example.org"], "Subject: hello\r\n\r\nare you there?\r\n")
        _until(lambda: len(running.records()) == 3)
        for record in running.records():
            assert "emulated" in record["filters"], record
    (told,) = running.said("mail")
    assert (told["sender"], told["recipients"]) == ("kim@example.org", "lee@example.org")
    return "a page and a mail, from servers that do not exist"


def round_robin(directory: Path) -> str:
    """Three servers share one port; a fourth peer is told that all of them are busy."""
    with firewall("round_robin", directory) as running:
        servers = [_bind(running.port, 8600) for _ in range(3)]
        peers = []
        for number, waiting in enumerate(servers):
            peer = socket.create_connection(("127.0.0.1", 8600), 10)
            peers.append(peer)
            assert receive(waiting, 10)[:2] == b"\x05\x00", "somebody has come"
            peer.sendall(b"hello")
            assert receive(waiting, 5) == b"hello"
            waiting.sendall(b"this is server %d\n" % number)
            assert receive_line(peer) == b"this is server %d\n" % number
        with socket.create_connection(("127.0.0.1", 8600), 10) as late:
            assert receive_all(late) == b"all servers are busy; please come again\r\n"
        for peer, waiting in zip(peers, servers, strict=True):
            with peer, waiting:
                peer.shutdown(socket.SHUT_WR)
                assert receive_all(waiting) == b""
                waiting.shutdown(socket.SHUT_WR)
                assert receive_all(peer) == b""
    return "three peers dealt to three servers behind one port, the fourth sent away politely"


def _bind(proxy_port: int, port: int) -> socket.socket:
    """A server that has asked for a port by SOCKS5 BIND, and waits for its peer."""
    sock = socket.create_connection(("127.0.0.1", proxy_port), 10)
    sock.sendall(b"\x05\x01\x00" + b"\x05\x02\x00\x01\0\0\0\0" + port.to_bytes(2, "big"))
    assert receive(sock, 2) == b"\x05\x00"
    reply = receive(sock, 10)
    assert reply[:2] == b"\x05\x00", f"SOCKS refused with {reply[1]}"
    assert reply[8:] == port.to_bytes(2, "big")
    return sock


def rename_host(directory: Path) -> str:
    """A name is led elsewhere, by policy's leave only."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nstaging\n"
    with server(lambda client: _answer(client, {b"/": answer})) as port:
        with firewall("rename_host", directory) as running:
            with tunnel(running.port, port, host="api.example") as sock:
                sock.sendall(b"GET / HTTP/1.1\r\nHost: api.example\r\n\r\n")
                assert receive_all(sock) == answer
            _until(lambda: len(running.records()) == 1)
            record = running.records()[0]
    assert (record["host"], record["address"]) == ("api.example", "127.0.0.1")
    return "api.example answered by this machine's own server"


def _answers() -> dict[bytes, bytes]:
    """One answer for each path; those whose name begins with `bad` must be refused."""
    ok = b"HTTP/1.1 200 OK\r\n"

    def chunked(body: bytes, size: int) -> bytes:
        pieces = [body[at : at + size] for at in range(0, len(body), size)]
        framed = b"".join(b"%x;why=not\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
        return ok + b"Transfer-Encoding: chunked\r\n\r\n" + framed + b"0\r\n\r\n"

    def sized(body: bytes) -> bytes:
        return ok + b"Content-Length: %d\r\n\r\n" % len(body) + body

    return {
        b"/text": sized(b"MZ is what the file begins with. " * 10),
        b"/short": sized(b"MZ"),
        b"/empty": sized(b""),
        b"/bulk": sized(BULK),
        b"/nothing": b"HTTP/1.1 204 No Content\r\n\r\n",
        b"/until-close": ok + b"Connection: close\r\n\r\n" + b"a text " * 100,
        b"/chunks": chunked(b"just a text " * 20, 7),
        b"/interim": b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n" + sized(b"a text"),
        b"/bad": sized(EXECUTABLE),
        b"/bad-chunks": chunked(EXECUTABLE, 3),
        b"/bad-interim": b"HTTP/1.1 103 Early Hints\r\n\r\n" + sized(EXECUTABLE),
        b"/bad-until-close": ok + b"\r\n" + EXECUTABLE,
        b"/bad-coding": ok + b"Content-Encoding: none\r\n\r\n" + EXECUTABLE,
        b"/bad-bare-newline": b"HTTP/1.1 200 OK\nServer: x\n\n" + EXECUTABLE + b"\r\n\r\n",
        b"/bad-cut-short": ok + b"Content-Length: 5000\r\n\r\n" + EXECUTABLE[:40],
    }


def _filtered(answer: bytes, size: int) -> bytes | str:
    """What the filter makes of an answer in pieces of this size, or the reason for which it refuses."""
    judge = NoExecutables()
    judge.start()
    out = judge.client_data(b"GET / HTTP/1.1\r\n\r\n")[:0]
    try:
        for at in range(0, len(answer), size):
            piece = answer[at : at + size]
            out += piece if judge.finished else judge.server_data(piece)
            if judge.finished and size < len(answer):
                return out + answer[at + size :]
        return out if judge.finished else out + judge.server_end()
    except Refuse as refused:
        return refused.reason


def _check_download(proxy_port: int, port: int, path: bytes, answer: bytes) -> None:
    bad = path.startswith(b"/bad")
    try:
        got = _get(proxy_port, port, path)
    except ConnectionResetError:
        got = None
    assert (got is None) == bad, f"{path.decode()} through SOCKS: {got[:200] if got else got!r}"
    if got is not None:
        assert got.endswith(answer.rpartition(b"\r\n\r\n")[2]), f"{path.decode()} has changed"
        assert b"Connection: close\r\n" in got
    got = _get_by_http_proxy(proxy_port, port, path)
    assert (b"HTTP/1.1 403 " in got) == bad, f"{path.decode()} through an HTTP proxy: {got[:200]!r}"
    assert not bad or b"Doorward-Reason: executable\r\n" in got or b"Doorward-Reason: not_http\r\n" in got


def _answer(client: socket.socket, answers: dict[bytes, bytes]) -> None:
    """A server of one request for each connection: the first part byte by byte, the rest at once."""
    request = b""
    while not request.endswith(b"\r\n\r\n") and (piece := client.recv(65_536)):
        request += piece
    answer = answers[request.split(b" ")[1]]
    send_bytewise(client, answer[:300])
    client.sendall(answer[300:])
    client.shutdown(socket.SHUT_WR)
    receive_all(client)


def _get(proxy_port: int, port: int, path: bytes) -> bytes:
    """An answer through SOCKS. Raises ConnectionResetError."""
    with tunnel(proxy_port, port) as sock:
        sock.sendall(b"GET %b HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n" % (path, port))
        return receive_all(sock)


def _get_by_http_proxy(proxy_port: int, port: int, path: bytes) -> bytes:
    """An answer through HTTP proxying."""
    with socket.create_connection(("127.0.0.1", proxy_port), 10) as sock:
        where = b"127.0.0.1:%d" % port
        sock.sendall(
            b"GET http://%b%b HTTP/1.1\r\nHost: %b\r\nConnection: close\r\n\r\n" % (where, path, where)
        )
        return receive_all(sock)


def _until(holds: Callable[[], bool]) -> None:
    """Records are written twice a second."""
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.1)


def main() -> int:
    """Every example; the exit status."""
    failed = 0
    for check in (shout, bytes_per_user, no_executables, rewrite_word, fake_server, rename_host, round_robin):
        with tempfile.TemporaryDirectory() as directory:
            try:
                told = check(Path(directory))
                print(f"ok      {check.__name__}: {told}")
            except Exception:
                failed += 1
                print(f"FAILED  {check.__name__}")
                traceback.print_exc()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
