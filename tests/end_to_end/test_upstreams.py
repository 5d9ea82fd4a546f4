"""Out through other firewalls: Dante, ncat, another Doorward, two in a row; and never direct unless it is written."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.end_to_end.conftest import StartFirewall
from tests.end_to_end.dialling import Dial, Refused, connect, socks5
from tests.end_to_end.other_firewalls import dante, ncat_proxy
from tests.end_to_end.running import EVERYTHING_HERE, LISTEN, RunningFirewall
from tests.end_to_end.servers import blocks, echo_server
from tests.net.certificates import usual

from doorward.config.passwords import hash_password

MIB = 8


@pytest.fixture(scope="module")
def echo() -> Iterator[int]:
    with echo_server() as port:
        yield port


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, int]]:
    """The ports of other people's firewalls."""
    home: Path = tmp_path_factory.mktemp("dante")
    with dante(home) as dante_port, ncat_proxy() as ncat_port:
        yield {"socks5": dante_port, "http": ncat_port}


def upstream(name: str, kind: str, port: int, more: str = "") -> str:
    return f'[upstreams.{name}]\nkind = "{kind}"\naddress = "127.0.0.1:{port}"\n{more}\n'


def route(*via: str) -> str:
    names = ", ".join(f'"{name}"' for name in via)
    return f'[[route]]\nname = "all"\nvia = [{names}]\n'


def policy(*parts: str) -> str:
    return LISTEN + EVERYTHING_HERE + "".join(parts)


def unused_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def check_echo(dial: Dial, firewall: RunningFirewall, port: int) -> None:
    """Some MiB there and back, block by block."""
    sent, received = hashlib.sha256(), hashlib.sha256()
    with dial(firewall.port, port) as sock:
        for block in blocks(MIB):
            piece = block[: 128 * 1024]  # what is on its way fits into the kernel's buffers
            sock.sendall(piece)
            sent.update(piece)
            left = len(piece)
            while left:
                data = sock.recv(left)
                assert data
                received.update(data)
                left -= len(data)
    assert received.digest() == sent.digest()


@pytest.mark.parametrize("dial", [socks5, connect], ids=["socks5 client", "http client"])
@pytest.mark.parametrize("kind", ["socks5", "http"])
def test_through_other_peoples_firewalls(
    start_firewall: StartFirewall, other: dict[str, int], echo: int, kind: str, dial: Dial
) -> None:
    firewall = start_firewall(policy(upstream("corp", kind, other[kind]), route("corp")))
    check_echo(dial, firewall, echo)
    (record,) = firewall.wait_for_records(1)
    assert (record.via, record.reason, record.end) == ("corp", "rule_allow", "closed")
    assert (record.bytes_sent, record.bytes_received) == (MIB * 128 * 1024, MIB * 128 * 1024)


@pytest.mark.parametrize("kind", ["socks5", "http"])
def test_through_another_doorward_that_wants_a_login(
    start_firewall: StartFirewall, tmp_path: Path, echo: int, kind: str
) -> None:
    secret = tmp_path / "corp.secret"
    secret.touch(0o600)
    secret.write_text("secret\n")
    users = f'users = ["kim"]\n[users.kim]\npassword = "{hash_password("secret")}"\n'
    far = start_firewall(LISTEN + EVERYTHING_HERE + users)
    login = f'user = "kim"\npassword_file = "{secret}"'
    near = start_firewall(policy(upstream("corp", kind, far.port, login), route("corp")))
    check_echo(socks5, near, echo)
    (seen,) = far.wait_for_records(1)
    assert seen.user == "kim"
    (record,) = near.wait_for_records(1)
    assert record.via == "corp"


def test_through_tls_by_whichever_certificate_the_policy_trusts(
    start_firewall: StartFirewall, tmp_path: Path, echo: int
) -> None:
    made = usual(tmp_path)
    identity = str(tmp_path / "server.pem"), str(tmp_path / "server.key")
    with ncat_proxy(identity=identity) as port:
        trusting = upstream("corp", "http", port, f'tls = true\nca_file = "{made.file}"')
        firewall = start_firewall(policy(trusting, route("corp")))
        check_echo(connect, firewall, echo)
        (record,) = firewall.wait_for_records(1)
        assert record.via == "corp"
        assert (record.bytes_sent, record.bytes_received) == (MIB * 128 * 1024, MIB * 128 * 1024)
        doubting = upstream("corp", "http", port, "tls = true")
        firewall = start_firewall(policy(doubting, route("corp")))
        with pytest.raises(Refused):
            connect(firewall.port, echo)
        (record,) = firewall.wait_for_records(1)
        assert record.reason == "upstream_unavailable"
        assert "tls_untrusted" in (record.detail or "")


def test_two_in_a_row(start_firewall: StartFirewall, other: dict[str, int], echo: int) -> None:
    first = upstream("edge", "socks5", other["socks5"])
    second = upstream("corp", "http", other["http"], 'through = "edge"')
    check_echo(connect, start_firewall(policy(first, second, route("corp"))), echo)


def test_who_cannot_be_reached_hands_over(
    start_firewall: StartFirewall, other: dict[str, int], echo: int
) -> None:
    firewall = start_firewall(
        policy(
            upstream("corp", "http", unused_port()),
            upstream("backup", "socks5", other["socks5"]),
            route("corp", "backup"),
        )
    )
    for _ in range(3):
        check_echo(socks5, firewall, echo)
    assert [record.via for record in firewall.wait_for_records(3)] == ["backup"] * 3


def test_when_all_fail_nothing_goes_direct(start_firewall: StartFirewall) -> None:
    firewall = start_firewall(policy(upstream("corp", "http", unused_port()), route("corp")))
    with socket.create_server(("127.0.0.1", 0)) as target:
        target.settimeout(0.2)
        port = target.getsockname()[1]
        with pytest.raises(Refused):
            socks5(firewall.port, port)
        with pytest.raises(Refused) as caught:
            connect(firewall.port, port)
        assert caught.value.args == (502,)
        with pytest.raises(TimeoutError):
            target.accept()
    record, _ = firewall.wait_for_records(2)
    assert (record.action, record.reason) == ("fail", "upstream_unavailable")
    assert record.detail is not None
    assert 'upstream "corp": connection_refused' in record.detail


def test_what_the_upstream_does_not_allow_is_not_allowed(start_firewall: StartFirewall, echo: int) -> None:
    far = start_firewall(LISTEN)
    for kind in ("socks5", "http"):
        near = start_firewall(policy(upstream("corp", kind, far.port), route("corp", "direct")))
        with pytest.raises(Refused) as caught:
            connect(near.port, echo)
        assert caught.value.args == (403,)
        (record,) = near.wait_for_records(1)
        assert (record.action, record.reason) == ("fail", "upstream_refused")


def test_a_reload_changes_the_way(start_firewall: StartFirewall, other: dict[str, int], echo: int) -> None:
    firewall = start_firewall(policy())
    check_echo(socks5, firewall, echo)
    firewall.rewrite_policy(policy(upstream("corp", "http", other["http"]), route("corp")))
    firewall.hang_up()
    check_echo(socks5, firewall, echo)
    assert [record.via for record in firewall.wait_for_records(2)] == [None, "corp"]
