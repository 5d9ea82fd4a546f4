"""Published servers with real programs: curl, HAProxy before and behind, a gateway that keeps clients' addresses."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import pytest
from tests.end_to_end.conftest import StartFirewall
from tests.end_to_end.running import LISTEN, PATIENCE_S, REPOSITORY, wait_for

PAGE: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\npage\r\n"


@contextmanager
def answering() -> Iterator[tuple[int, list[bytes]]]:
    """A web server with one page; what each connection began with."""
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    peer, _ = listener.accept()
                except OSError:
                    return
                with peer, suppress(OSError):  # who leaves costs nobody else the page
                    peer.settimeout(PATIENCE_S)
                    data = b""
                    while b"\r\n\r\n" not in data:
                        more = peer.recv(65_536)
                        if not more:
                            break
                        data += more
                    heard.append(data)
                    peer.sendall(PAGE)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1], heard
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(PATIENCE_S)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def publish(listen: int, to: int, more: str = "") -> str:
    return (
        f'[[publish]]\nname = "web"\nlisten = ["tcp/127.0.0.1:{listen}"]\nto = ["127.0.0.1:{to}"]\n'
        f'from = ["127.0.0.0/8"]\n{more}\n'
    )


def fetch(curl: str, port: int, *more: str) -> str:
    command = [curl, "-sS", "--max-time", "10", "--noproxy", "*", *more, f"http://127.0.0.1:{port}/"]
    return subprocess.run(command, check=True, capture_output=True, timeout=PATIENCE_S).stdout.decode()


def test_curl_gets_the_page_of_a_published_server_and_again_after_a_reload(
    start_firewall: StartFirewall, program: Callable[[str], str]
) -> None:
    curl, port = program("curl"), free_port()
    with answering() as (first, _), answering() as (second, heard):
        firewall = start_firewall(LISTEN + publish(port, first))
        assert fetch(curl, port) == "page\r\n"
        firewall.rewrite_policy(LISTEN + publish(port, second))
        firewall.hang_up()
        assert fetch(curl, port) == "page\r\n"
        assert len(heard) == 1
        firewall.wait_for_records(2, lambda r: r.rule == "web" and r.operation == "accept")


def test_curl_speaks_the_proxy_protocol_and_the_server_hears_of_the_client(
    start_firewall: StartFirewall, program: Callable[[str], str]
) -> None:
    curl, port = program("curl"), free_port()
    with answering() as (server, heard):
        more = 'proxy_protocol = { read = ["127.0.0.1"], write = "v1" }'
        firewall = start_firewall(LISTEN + publish(port, server, more))
        assert fetch(curl, port, "--haproxy-protocol") == "page\r\n"
        assert heard[0].startswith(b"PROXY TCP4 127.0.0.1 127.0.0.1 ")
        with pytest.raises(subprocess.CalledProcessError):
            fetch(curl, port)
        assert len(heard) == 1
        (refused,) = firewall.wait_for_records(1, lambda r: r.action == "fail")
        assert refused.reason == "proxy_header_missing"


def test_several_workers_publish_the_same_server(
    start_firewall: StartFirewall, program: Callable[[str], str]
) -> None:
    curl, port = program("curl"), free_port()
    with answering() as (server, heard):
        policy = LISTEN.replace("[listen]", "[listen]\nworkers = 2") + publish(port, server)
        firewall = start_firewall(policy)
        assert [fetch(curl, port) for _ in range(8)] == ["page\r\n"] * 8
        firewall.rewrite_policy(policy.replace(f"127.0.0.1:{port}", f"127.0.0.2:{port}"))
        firewall.hang_up()
        with pytest.raises(subprocess.CalledProcessError):
            fetch(curl, port)
        assert len(heard) == 8
        records = firewall.wait_for_records(8, lambda r: r.operation == "accept" and r.action == "allow")
        assert len({record.connection for record in records}) == 8


HAPROXY: Final = """
defaults
    mode tcp
    timeout connect 5s
    timeout client 10s
    timeout server 10s
listen front
    bind fd@{front}
    server doorward 127.0.0.1:{published} {send}
listen back
    bind fd@{back} accept-proxy
    server web 127.0.0.1:{web}
"""


@pytest.mark.parametrize(
    ("send", "write"), [("send-proxy", "v2"), ("send-proxy-v2 proxy-v2-options crc32c,unique-id", "v1")]
)
def test_haproxy_understands_us_and_we_understand_it(
    start_firewall: StartFirewall, program: Callable[[str], str], tmp_path: Path, send: str, write: str
) -> None:
    haproxy, curl = program("haproxy"), program("curl")
    # Sockets that HAProxy inherits: nobody else can take their ports, and they can be connected to at once.
    front, back = (socket.create_server(("127.0.0.1", 0)) for _ in range(2))
    with front, back, answering() as (web, _):
        more = f'proxy_protocol = {{ read = ["127.0.0.1"], write = "{write}" }}'
        firewall = start_firewall(LISTEN + publish(0, back.getsockname()[1], more))
        (told,) = wait_for(lambda: firewall.events("a server is published"), "it is published")
        settings = tmp_path / "haproxy.cfg"
        ends = {"front": front.fileno(), "back": back.fileno(), "published": told["at"].rpartition(":")[2]}
        settings.write_text(HAPROXY.format(**ends, web=web, send=send))
        running = subprocess.Popen(
            [haproxy, "-f", str(settings)],
            stderr=subprocess.PIPE,
            pass_fds=(front.fileno(), back.fileno()),
        )
        try:
            assert fetch(curl, front.getsockname()[1], "--interface", "127.0.0.7") == "page\r\n"
        finally:
            running.kill()
            running.communicate(timeout=PATIENCE_S)
        (record,) = firewall.wait_for_records(1, lambda r: r.operation == "accept")
        assert (record.action, record.address) == ("allow", "127.0.0.7")


def why_no_namespaces() -> str:
    """What keeps an ordinary user from making network namespaces; empty if nothing does."""
    try:
        done = subprocess.run(
            ["unshare", "-Urn", "ip", "link", "add", "inner", "type", "veth", "peer", "name", "outer"],
            capture_output=True,
            timeout=PATIENCE_S,
            check=False,
        )
    except OSError as error:
        return str(error)
    return done.stderr.decode().strip() if done.returncode else ""


def test_a_gateway_keeps_the_addresses_of_clients_for_published_servers(tmp_path: Path) -> None:
    why = why_no_namespaces()
    if why:
        pytest.skip(f"no network namespaces here: {why}")
    command = ["unshare", "-Urn", sys.executable, "-m", "tests.end_to_end.routed", str(tmp_path)]
    driver = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=REPOSITORY, start_new_session=True
    )
    try:
        said, trouble = driver.communicate(timeout=20)
    finally:
        try:
            os.killpg(driver.pid, signal.SIGKILL)  # everything that it had started
        except ProcessLookupError:
            pass  # it has ended all of it
    assert driver.returncode == 0, trouble.decode()
    assert json.loads(said) == {
        "kept tcp 4": "10.1.0.2",
        "kept udp 4": "10.1.0.2",
        "kept tcp 6": "fd01::2",
        "kept udp 6": "fd01::2",
        "full tcp 4": "10.2.0.1",
        "full udp 4": "10.2.0.1",
        "full tcp 6": "10.2.0.1",
    }
