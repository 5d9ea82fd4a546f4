"""wget, netcat, ncat, socat and a browser."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable

import pytest
from tests.end_to_end.running import RunningFirewall
from tests.end_to_end.servers import echo_server, http_server

Program = Callable[[str], str]


def test_wget(firewall: RunningFirewall, program: Program) -> None:
    environment = os.environ | {"http_proxy": f"http://{firewall.address}", "no_proxy": ""}
    with http_server() as port:
        command = [
            program("wget"),
            "--quiet",
            "--tries=1",
            "--no-config",
            "-O",
            "-",
            f"http://app.localhost:{port}/page",
        ]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=20, check=False
        )
    assert done.stdout.startswith("GET /page\n"), done.stderr
    [record] = firewall.wait_for_records(1, lambda record: record.port == port)
    assert record.host == "app.localhost"


TUNNELS = {
    "netcat, socks5": ("nc.openbsd", "-N -X 5 -x {proxy} 127.0.0.1 {port}"),
    "netcat, socks4": ("nc.openbsd", "-N -X 4 -x {proxy} 127.0.0.1 {port}"),
    "netcat, connect": ("nc.openbsd", "-N -X connect -x {proxy} 127.0.0.1 {port}"),
    "ncat, socks5": ("ncat", "--proxy {proxy} --proxy-type socks5 127.0.0.1 {port}"),
    "ncat, socks4": ("ncat", "--proxy {proxy} --proxy-type socks4 127.0.0.1 {port}"),
    "ncat, connect": ("ncat", "--proxy {proxy} --proxy-type http 127.0.0.1 {port}"),
    "socat, socks4": ("socat", "-t5 - SOCKS4:127.0.0.1:127.0.0.1:{port},socksport={own}"),
    "socat, socks4a": ("socat", "-t5 - SOCKS4A:127.0.0.1:app.localhost:{port},socksport={own}"),
    "socat, connect": ("socat", "-t5 - PROXY:127.0.0.1:app.localhost:{port},proxyport={own}"),
}


@pytest.mark.parametrize("way", TUNNELS)
def test_a_tunnel_echoes_and_half_close_goes_through(
    firewall: RunningFirewall, program: Program, way: str
) -> None:
    name, arguments = TUNNELS[way]
    content = b"line\n" * 50_000
    with echo_server() as port:
        words = arguments.format(proxy=firewall.address, port=port, own=firewall.port).split()
        done = subprocess.run(
            [program(name), *words], input=content, capture_output=True, timeout=20, check=False
        )
    assert done.stdout == content, done.stderr
    [record] = firewall.wait_for_records(1, lambda record: record.port == port)
    assert (record.action, record.bytes_sent, record.bytes_received) == ("allow", len(content), len(content))


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["socks5", "http"])
def test_a_browser_shows_the_page(
    firewall: RunningFirewall, program: Program, tmp_path_factory: pytest.TempPathFactory, scheme: str
) -> None:
    profile = tmp_path_factory.mktemp("profile")
    with http_server() as port:
        command = [
            program("chromium"), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}",
            f"--proxy-server={scheme}://{firewall.address}", "--proxy-bypass-list=<-loopback>",
            "--virtual-time-budget=3000", "--dump-dom", f"http://app.localhost:{port}/page",
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert "GET /page" in done.stdout, done.stderr
    assert {r.host for r in firewall.wait_for_records(1, lambda record: record.port == port)} == {
        "app.localhost"
    }
