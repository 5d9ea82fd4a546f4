"""curl in all its ways of using a proxy."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.end_to_end.conftest import StartFirewall, starting_firewalls
from tests.end_to_end.running import EVERYTHING_HERE, LISTEN, RunningFirewall
from tests.end_to_end.servers import http_server

from doorward.config.passwords import hash_password

Program = Callable[[str], str]

WAYS = {
    "socks5": ["--socks5", "{proxy}"],
    "socks5 by name": ["--socks5-hostname", "{proxy}"],
    "socks4": ["--socks4", "{proxy}"],
    "socks4a": ["--socks4a", "{proxy}"],
    "plain http": ["--proxy", "http://{proxy}"],
    "connect": ["--proxy", "http://{proxy}", "--proxytunnel"],
    "http/1.0 proxy": ["--proxy1.0", "{proxy}"],
    "http/1.0 proxy, connect": ["--proxy1.0", "{proxy}", "--proxytunnel"],
    "http/1.0 client": ["--proxy", "http://{proxy}", "--http1.0"],
}


def curl(program: Program, *arguments: str, firewall: RunningFirewall) -> subprocess.CompletedProcess[str]:
    """Run curl with the firewall's address in the place of {proxy}."""
    filled = [argument.format(proxy=firewall.address) for argument in arguments]
    command = [program("curl"), "--silent", "--show-error", "--noproxy", "", "--max-time", "15", *filled]
    return subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)


@pytest.mark.parametrize("way", WAYS)
def test_every_way_of_curl_gets_the_page(firewall: RunningFirewall, program: Program, way: str) -> None:
    with http_server() as port:
        done = curl(program, *WAYS[way], f"http://127.0.0.1:{port}/page?q=1", firewall=firewall)
    assert done.stdout.startswith("GET /page?q=1\n"), done
    [record] = firewall.wait_for_records(1, lambda record: record.port == port)
    assert (record.action, record.rule, record.end) == ("allow", "everything here", "closed")


@pytest.mark.parametrize("way", ["socks5 by name", "socks4a", "plain http", "connect"])
def test_a_name_is_resolved_by_the_firewall_and_stands_in_the_record(
    firewall: RunningFirewall, program: Program, way: str
) -> None:
    with http_server() as port:
        done = curl(program, *WAYS[way], f"http://app.localhost:{port}/", firewall=firewall)
    assert f"Host: app.localhost:{port}" in done.stdout, done
    [record] = firewall.wait_for_records(1, lambda record: record.port == port)
    assert (record.host, record.address) == ("app.localhost", "127.0.0.1")


@pytest.mark.parametrize("way", ["socks5", "plain http", "connect"])
@pytest.mark.parametrize(
    "framing",
    [[], ["--header", "Transfer-Encoding: chunked"], ["--header", "Expect: 100-continue"], ["--http1.0"]],
)
def test_an_upload_arrives_whole(
    firewall: RunningFirewall, program: Program, tmp_path: Path, way: str, framing: list[str]
) -> None:
    content = bytes(range(256)) * 8192
    (tmp_path / "file").write_bytes(content)
    with http_server() as port:
        arguments = [*WAYS[way], *framing, "--upload-file", str(tmp_path / "file")]
        done = curl(program, *arguments, f"http://127.0.0.1:{port}/", firewall=firewall)
    assert done.stdout == f"PUT {len(content)} {hashlib.sha256(content).hexdigest()}", done


def test_a_server_that_ignores_expect_gets_the_body_after_the_clients_own_timeout(
    firewall: RunningFirewall, program: Program, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"x" * 100_000)
    arguments = [
        *WAYS["plain http"], "--header", "Expect: 100-continue", "--expect100-timeout", "0.05",
        "--upload-file", str(tmp_path / "file"),
    ]  # fmt: skip
    with http_server() as port:
        done = curl(program, *arguments, f"http://127.0.0.1:{port}/", firewall=firewall)
    assert done.stdout.startswith("PUT 100000 "), done


def test_one_client_connection_serves_many_requests(firewall: RunningFirewall, program: Program) -> None:
    with http_server() as port:
        urls = [f"http://127.0.0.1:{port}/{number}" for number in range(20)]
        done = curl(program, *WAYS["plain http"], *urls, firewall=firewall)
    assert done.stdout.count("GET /") == 20
    assert len(firewall.wait_for_records(1, lambda record: record.port == port)) == 1


def test_what_is_meant_for_the_proxy_does_not_reach_the_server(
    firewall: RunningFirewall, program: Program
) -> None:
    with http_server() as port:
        done = curl(
            program, *WAYS["plain http"], "--header", "Proxy-Connection: keep-alive",
            f"http://127.0.0.1:{port}/", firewall=firewall,
        )  # fmt: skip
    assert "proxy-connection" not in done.stdout.lower(), done


@pytest.mark.parametrize(
    ("way", "exit_status", "told"),
    [
        ("socks5", 97, "(2)"),  # connection not allowed by ruleset
        ("socks5 by name", 97, "(2)"),
        ("socks4", 97, "(91)"),
        ("socks4a", 97, "(91)"),
        ("connect", 56, "403"),
        ("plain http", 0, ""),
    ],
)
def test_a_refused_client_is_told_and_the_record_says_why(
    start_firewall: StartFirewall, program: Program, way: str, exit_status: int, told: str
) -> None:
    firewall = start_firewall(LISTEN)
    done = curl(program, *WAYS[way], "http://127.0.0.1:9/", firewall=firewall)
    assert done.returncode == exit_status
    assert told in done.stderr
    [record] = firewall.wait_for_records(1)
    assert (record.action, record.reason) == ("deny", "guarded_loopback")
    if way == "plain http":
        assert "guarded_loopback" in done.stdout


@pytest.mark.parametrize(
    ("way", "exit_status", "told"), [("socks5", 97, "(5)"), ("connect", 56, "502"), ("plain http", 0, "")]
)
def test_a_server_that_refuses_is_told_apart_from_policy(
    firewall: RunningFirewall, program: Program, way: str, exit_status: int, told: str
) -> None:
    with http_server() as port:
        pass
    done = curl(program, *WAYS[way], f"http://127.0.0.1:{port}/", firewall=firewall)
    assert done.returncode == exit_status
    assert told in done.stderr
    [record] = firewall.wait_for_records(1, lambda record: record.port == port)
    assert (record.action, record.reason) == ("fail", "connection_refused")


LOGIN_WAYS = {
    "socks5": ["--proxy", "socks5h://{proxy}"],
    "plain http": ["--proxy", "http://{proxy}"],
    "connect": ["--proxy", "http://{proxy}", "--proxytunnel"],
    "plain http, after being asked": ["--proxy", "http://{proxy}", "--proxy-anyauth"],
    "connect, after being asked": ["--proxy", "http://{proxy}", "--proxytunnel", "--proxy-anyauth"],
}


@pytest.fixture(scope="module")
def firewall_with_users() -> Iterator[RunningFirewall]:
    """Only kim may."""
    users = f'[users.kim]\npassword = "{hash_password("right")}"\n'
    with starting_firewalls() as start:
        yield start(LISTEN + users + EVERYTHING_HERE + 'users = ["kim"]\n')


@pytest.mark.parametrize("way", LOGIN_WAYS)
def test_a_user_who_says_the_right_password_gets_through(
    firewall_with_users: RunningFirewall, program: Program, way: str
) -> None:
    firewall = firewall_with_users
    with http_server() as port:
        done = curl(
            program,
            *LOGIN_WAYS[way],
            "--proxy-user",
            "kim:right",
            f"http://127.0.0.1:{port}/",
            firewall=firewall,
        )
    assert done.stdout.startswith("GET /"), done
    assert "kim" not in done.stdout
    assert "roxy-authorization" not in done.stdout
    [record] = firewall.wait_for_records(1, lambda record: record.port == port and record.action == "allow")
    assert record.user == "kim"


@pytest.mark.parametrize("way", LOGIN_WAYS)
@pytest.mark.parametrize("login", [["--proxy-user", "kim:wrong"], ["--proxy-user", "nobody:right"], []])
def test_nobody_else_does(
    firewall_with_users: RunningFirewall, program: Program, way: str, login: list[str]
) -> None:
    firewall = firewall_with_users
    before = len(firewall.records())
    with http_server() as port:
        done = curl(program, *LOGIN_WAYS[way], *login, f"http://127.0.0.1:{port}/", firewall=firewall)
    assert not done.stdout.startswith("GET /")
    records = firewall.wait_for_records(before + 1)[before:]
    assert {record.action for record in records} == {"deny"}
    assert records[-1].reason in ("bad_credentials", "user_needed", "needs_user")
