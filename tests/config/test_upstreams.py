from __future__ import annotations

import ssl
import subprocess
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.net.certificates import usual

from doorward.config.document import Document
from doorward.config.lines import Lines
from doorward.config.model import ListenAddress, Upstream
from doorward.config.problems import Report
from doorward.config.upstreams import HOPS_MAX, hops, read_upstreams

CORP: dict[str, Any] = {"kind": "http", "address": "proxy.example:3128"}


def read(
    directory: Path, listen: tuple[ListenAddress, ...] = (), **tables: dict[str, Any]
) -> tuple[dict[str, Upstream], list[str]]:
    report = Report("p", Lines(""))
    document = msgspec.convert({"upstreams": tables}, Document)
    return read_upstreams(document, directory, listen, report), [p.message for p in report.problems()]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("certificates")
    usual(directory)
    for key in directory.glob("*.key"):
        key.chmod(0o600)
    return directory


@pytest.mark.parametrize(
    ("address", "host", "port"),
    [
        ("Proxy.Example.:3128", "proxy.example", 3128),
        ("192.0.2.1:1", IPv4Address("192.0.2.1"), 1),
        ("[2001:db8::1]:65535", IPv6Address("2001:db8::1"), 65_535),
    ],
)
def test_an_address_is_a_name_or_an_address_with_a_port(
    tmp_path: Path, address: str, host: object, port: int
) -> None:
    found, problems = read(tmp_path, corp=CORP | {"address": address})
    assert (found["corp"].host, found["corp"].port, problems) == (host, port, [])


@pytest.mark.parametrize(
    "address", ["proxy", "proxy:", ":1", "proxy:65536", "2001:db8::1:1", "a@b:1", "a b:1"]
)
def test_another_address_is_a_mistake(tmp_path: Path, address: str) -> None:
    assert len(read(tmp_path, corp=CORP | {"address": address})[1]) == 1


def test_a_password_comes_from_its_file_and_is_never_shown(tmp_path: Path) -> None:
    (tmp_path / "corp.secret").write_text("hush\n")
    (tmp_path / "corp.secret").chmod(0o600)
    found, problems = read(tmp_path, corp=CORP | {"user": "kim", "password_file": "corp.secret"})
    assert (found["corp"].user, found["corp"].password, problems) == ("kim", "hush", [])
    assert "hush" not in repr(found)


def test_a_password_too_long_for_any_upstream_is_a_mistake(tmp_path: Path) -> None:
    _, problems = read(tmp_path, corp=CORP | {"user": "kim", "password": "h" * 256})
    assert any("at most 255" in problem for problem in problems)
    assert not any("hhh" in problem for problem in problems)


@pytest.mark.parametrize(
    ("listen", "address", "is_mistake"),
    [
        ("127.0.0.1", "127.0.0.1:3128", True),
        ("127.0.0.1", "localhost:3128", True),
        ("0.0.0.0", "127.0.0.1:3128", True),
        ("192.0.2.1", "192.0.2.1:3128", True),
        ("127.0.0.1", "127.0.0.1:3129", False),
        ("192.0.2.1", "127.0.0.1:3128", False),
        ("0.0.0.0", "192.0.2.1:3128", False),
        ("127.0.0.1", "proxy.example:3128", False),
    ],
)
def test_an_upstream_that_is_ourselves_is_a_mistake(
    tmp_path: Path, listen: str, address: str, is_mistake: bool
) -> None:
    problems = read(tmp_path, (ListenAddress(listen, 3128),), corp=CORP | {"address": address})[1]
    assert bool(problems) == is_mistake


def test_the_same_address_behind_another_upstream_is_another_machine(tmp_path: Path) -> None:
    listen = (ListenAddress("127.0.0.1", 3128),)
    _, problems = read(
        tmp_path, listen, edge=CORP, corp=CORP | {"address": "127.0.0.1:3128", "through": "edge"}
    )
    assert problems == []


def test_hops_begin_with_the_one_that_is_dialled(tmp_path: Path) -> None:
    found, problems = read(tmp_path, a=CORP, b=CORP | {"through": "a"}, c=CORP | {"through": "b"})
    assert problems == []
    assert [hop.name for hop in hops(found, "c")] == ["a", "b", "c"]


def test_hops_have_an_end(tmp_path: Path) -> None:
    row = {
        f"u{number}": CORP | ({"through": f"u{number - 1}"} if number else {})
        for number in range(HOPS_MAX + 1)
    }
    assert read(tmp_path, (), **row)[1] == [
        f"{HOPS_MAX + 1} upstreams behind one another; at most {HOPS_MAX}"
    ]
    assert read(tmp_path, a=CORP | {"through": "a"})[1] == ['it goes round in a circle: "a" through "a"']


def test_tls_checks_name_and_certificate(certificates: Path) -> None:
    found, problems = read(
        certificates,
        corp=CORP | {"tls": True, "ca_file": "ca.pem", "certificate": "client.pem", "key": "client.key"},
        named=CORP | {"tls": True, "server_name": "Other.Test"},
    )
    assert problems == []
    corp, named = found["corp"].tls, found["named"].tls
    assert corp is not None
    assert named is not None
    assert (corp.server_name, named.server_name) == ("proxy.example", "other.test")
    assert (corp.context.check_hostname, corp.context.verify_mode) == (True, ssl.CERT_REQUIRED)
    assert corp.context.minimum_version == ssl.TLSVersion.TLSv1_2
    (only,) = corp.context.get_ca_certs()
    assert "Test authority" in str(only["subject"])


def test_only_an_outright_word_turns_verification_off_and_it_is_doubted(tmp_path: Path) -> None:
    found, problems = read(tmp_path, corp=CORP | {"tls": True, "verify": False})
    assert found["corp"].tls is not None
    assert found["corp"].tls.context.verify_mode == ssl.CERT_NONE
    assert len(problems) == 1


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"ca_file": "client.key"}, "the file does not hold certificates (PEM)"),
        ({"ca_file": "missing.pem"}, "there is no file"),
        ({"certificate": "client.pem"}, "the file does not hold a certificate and its unencrypted key (PEM)"),
        ({"certificate": "client.pem", "key": "server.key"}, "the file does not hold a certificate and its"),
        ({"certificate": "client.pem", "key": "missing.key"}, "there is no file"),
        ({"certificate": "client.pem", "key": "locked.key"}, "the file does not hold a certificate and its"),
        ({"key": "client.key"}, '"certificate" is missing'),
    ],
)
def test_files_that_are_of_no_use_are_found_before_a_connection_is(
    certificates: Path, keys: dict[str, str], expected: str
) -> None:
    subprocess.run(
        [
            *("openssl", "pkcs8", "-topk8", "-in", certificates / "client.key"),
            *("-out", certificates / "locked.key", "-passout", "pass:secret"),
        ],
        check=True,
        timeout=10,
    )
    _, problems = read(certificates, corp=CORP | {"tls": True} | keys)
    assert any(problem.startswith(expected) for problem in problems), problems


def test_a_key_that_others_can_read_is_doubted(certificates: Path) -> None:
    key = certificates / "client.key"
    key.chmod(0o644)
    _, problems = read(
        certificates, corp=CORP | {"tls": True, "certificate": "client.pem", "key": "client.key"}
    )
    key.chmod(0o600)
    assert len(problems) == 1
    assert "chmod 600" in problems[0]
