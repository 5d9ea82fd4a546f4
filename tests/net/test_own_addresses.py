"""Which addresses are the machine's own, read from tables like the kernel's."""

from __future__ import annotations

import errno
import socket
from ipaddress import IPv4Network, IPv6Network, ip_address
from pathlib import Path

import pytest
from tests.net.wires import Clock

from doorward.net.own_addresses import REMEMBERED_S, OwnAddresses, local_ipv4, local_ipv6

FIB_TRIE = """\
Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     +-- 127.0.0.0/8 2 0 2
        +-- 127.0.0.0/31 1 0 0
           |-- 127.0.0.0
              /8 host LOCAL
           |-- 127.0.0.1
              /32 host LOCAL
        |-- 127.255.255.255
           /32 link BROADCAST
     +-- 192.0.2.0/24 2 0 2
        |-- 192.0.2.0
           /24 link UNICAST
        |-- 192.0.2.7
           /32 host LOCAL
     |-- 198.51.100.0
        /24 host LOCAL
"""

IF_INET6 = """\
00000000000000000000000000000001 01 80 10 80       lo
20010db8000000000000000000000007 02 40 00 80     eth0
"""


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    (tmp_path / "fib_trie").write_text(FIB_TRIE)
    (tmp_path / "if_inet6").write_text(IF_INET6)
    return tmp_path


def test_only_local_entries_count() -> None:
    assert local_ipv4(FIB_TRIE) == [
        IPv4Network("127.0.0.0/8"),
        IPv4Network("127.0.0.1/32"),
        IPv4Network("192.0.2.7/32"),
        IPv4Network("198.51.100.0/24"),
    ]


def test_every_ipv6_address_counts() -> None:
    assert local_ipv6(IF_INET6 + "\n") == [IPv6Network("::1/128"), IPv6Network("2001:db8::7/128")]


@pytest.mark.parametrize(
    ("address", "own"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("192.0.2.7", True),
        ("192.0.2.8", False),
        ("192.0.2.255", False),
        ("198.51.100.99", True),
        ("203.0.113.1", False),
        ("::1", True),
        ("2001:db8::7", True),
        ("2001:db8::8", False),
    ],
)
def test_an_address_is_own_if_it_would_end_here(proc: Path, address: str, *, own: bool) -> None:
    assert OwnAddresses(Clock(0), proc).is_own(ip_address(address)) is own


def test_a_new_address_is_seen_soon_and_not_asked_for_each_time(proc: Path) -> None:
    clock = Clock(0)
    addresses, new = OwnAddresses(clock, proc), ip_address("192.0.2.8")
    assert not addresses.is_own(new)
    (proc / "fib_trie").write_text(FIB_TRIE.replace("192.0.2.7", "192.0.2.8"))
    assert not addresses.is_own(new)
    clock.advance(REMEMBERED_S)
    assert addresses.is_own(new)
    assert not addresses.is_own(ip_address("192.0.2.7"))


@pytest.mark.parametrize("name", ["fib_trie", "if_inet6"])
def test_when_a_table_cannot_be_read_the_last_answer_stands(
    proc: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Out of descriptors, say: nothing may cease to be ours for that."""
    clock = Clock(0)
    addresses = OwnAddresses(clock, proc)
    ours = [ip_address("192.0.2.7"), ip_address("2001:db8::7")]
    assert all(addresses.is_own(address) for address in ours)
    read_text = Path.read_text

    def none_left(self: Path, encoding: str | None = None, errors: str | None = None) -> str:
        if self.name == name:
            raise OSError(errno.EMFILE, "")
        return read_text(self, encoding, errors)

    monkeypatch.setattr(Path, "read_text", none_left)
    clock.advance(REMEMBERED_S)
    assert all(addresses.is_own(address) for address in ours)


def test_a_machine_without_ipv6_still_knows_its_ipv4_addresses(proc: Path) -> None:
    (proc / "if_inet6").unlink()
    addresses = OwnAddresses(Clock(0), proc)
    assert addresses.is_own(ip_address("192.0.2.7"))
    assert not addresses.is_own(ip_address("::1"))


@pytest.mark.parametrize(
    ("address", "own"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("203.0.113.1", False), ("2001:db8::8", False)],
)
def test_where_there_are_no_tables_the_kernel_is_asked(tmp_path: Path, address: str, *, own: bool) -> None:
    """Some containers hide /proc/net; the firewall's own addresses must not be open there."""
    assert OwnAddresses(Clock(0), tmp_path).is_own(ip_address(address)) is own


def test_an_address_about_which_nothing_can_be_learned_counts_as_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(family: int, kind: int) -> socket.socket:
        raise OSError(errno.EMFILE, "")

    monkeypatch.setattr(socket, "socket", none_left)
    assert OwnAddresses(Clock(0), tmp_path).is_own(ip_address("203.0.113.1"))


def test_this_machine_knows_itself() -> None:
    assert OwnAddresses(Clock(0)).is_own(ip_address("127.0.0.1"))


def test_a_table_that_leads_everything_here_makes_nothing_our_own() -> None:
    """What TPROXY needs: a local default route, which only marked packets see."""
    led_here = "Id 100:\n  |-- 0.0.0.0\n     /0 host LOCAL\n  |-- 203.0.113.0\n     /24 host LOCAL\n"
    assert local_ipv4(led_here + FIB_TRIE) == [IPv4Network("203.0.113.0/24"), *local_ipv4(FIB_TRIE)]
    assert local_ipv4("Local:\n  |-- 0.0.0.0\n     /0 host LOCAL\n") == [IPv4Network("0.0.0.0/0")]
