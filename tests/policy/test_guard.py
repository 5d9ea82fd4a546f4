from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doorward.policy.guard import METADATA_ADDRESSES, guard
from doorward.policy.model import IPAddress


@pytest.mark.parametrize(
    ("text", "reason", "block"),
    [
        ("127.0.0.1", "guarded_loopback", "127.0.0.0/8"),
        ("127.255.255.255", "guarded_loopback", "127.0.0.0/8"),
        ("::1", "guarded_loopback", "::1/128"),
        ("0.0.0.0", "guarded_not_unicast", "0.0.0.0/8"),
        ("0.1.2.3", "guarded_not_unicast", "0.0.0.0/8"),
        ("::", "guarded_not_unicast", "::/128"),
        ("169.254.1.1", "guarded_link_local", "169.254.0.0/16"),
        ("fe80::1", "guarded_link_local", "fe80::/10"),
        ("febf::1", "guarded_link_local", "fe80::/10"),
        ("fe80::1%eth0", "guarded_link_local", "fe80::/10"),
        ("169.254.169.254", "guarded_metadata", "169.254.169.254/32"),
        ("fd00:ec2::254", "guarded_metadata", "fd00:ec2::254/128"),
        ("fe80::a9fe:a9fe", "guarded_metadata", "fe80::a9fe:a9fe/128"),
        ("168.63.129.16", "guarded_metadata", "168.63.129.16/32"),
        ("224.0.0.1", "guarded_not_unicast", "224.0.0.0/4"),
        ("239.255.255.255", "guarded_not_unicast", "224.0.0.0/4"),
        ("ff02::1", "guarded_not_unicast", "ff00::/8"),
        ("255.255.255.255", "guarded_not_unicast", "255.255.255.255/32"),
    ],
)
def test_a_guarded_address_has_a_reason_and_a_block(text: str, reason: str, block: str) -> None:
    guarded = guard(ip_address(text))
    assert guarded is not None
    assert (guarded.reason, guarded.block) == (reason, ip_network(block))
    assert guarded.label.startswith("built-in: ")


@pytest.mark.parametrize(
    "text",
    [
        "8.8.8.8",
        "10.0.0.1",
        "126.255.255.255",
        "128.0.0.1",
        "169.253.255.255",
        "169.255.0.0",
        "168.63.129.17",
        "1.0.0.0",
        "100.100.100.201",
        "192.0.0.1",
        "223.255.255.255",
        "240.0.0.1",
        "fd00::1",
        "2001:db8::1",
        "fec0::1",
        "::2:0:0:1",
    ],
)
def test_ordinary_addresses_are_left_to_the_rules(text: str) -> None:
    assert guard(ip_address(text)) is None


@pytest.mark.parametrize(
    "text",
    [
        "::127.0.0.1",
        "::ffff:0:127.0.0.1",
        "64:ff9b::127.0.0.1",
        "64:ff9b:1::127.0.0.1",
        "64:ff9b:1:7f00:0:100::",
        "2002:7f00:1::1",
        "2001:0:c000:201:0:0:80ff:fffe",
        "2001:db8::5efe:127.0.0.1",
    ],
)
def test_loopback_in_disguise_is_guarded_and_only_that_very_address_names_it(text: str) -> None:
    guarded = guard(ip_address(text))
    assert guarded is not None
    assert (guarded.reason, guarded.label) == ("guarded_loopback", "built-in: loopback")
    assert guarded.block == ip_network(text)


def test_a_mapped_address_is_guarded_as_its_ipv4() -> None:
    assert guard(ip_address("::ffff:127.0.0.1")) == guard(ip_address("127.0.0.1"))
    assert guard(ip_address("::ffff:169.254.169.254")) == guard(ip_address("169.254.169.254"))


@pytest.mark.parametrize("address", METADATA_ADDRESSES, ids=str)
def test_no_link_local_rule_names_a_metadata_address(address: IPAddress) -> None:
    guarded = guard(address)
    assert guarded is not None
    assert guarded.reason == "guarded_metadata"
    assert guarded.block.num_addresses == 1


@pytest.mark.parametrize("text", ["192.0.2.1", "2001:db8::1", "10.0.0.1", "fe80::1"])
def test_the_firewalls_own_address_is_guarded_one_by_one(text: str) -> None:
    guarded = guard(ip_address(text), own=True)
    assert guarded is not None
    assert (guarded.reason, guarded.block) == ("guarded_own_address", ip_network(text))


def test_loopback_stays_loopback_though_it_is_the_firewalls_own() -> None:
    assert guard(ip_address("127.0.0.1"), own=True) == guard(ip_address("127.0.0.1"))


@given(st.ip_addresses(), st.booleans())
def test_the_block_always_holds_the_address(address: IPAddress, own: bool) -> None:
    guarded = guard(address, own=own)
    assert guarded is not None or not own
    mapped = getattr(address, "ipv4_mapped", None)
    assert guarded is None or (mapped or address) in guarded.block


@given(st.ip_addresses(v=4))
def test_the_quick_look_at_the_first_octet_misses_nothing(address: IPAddress) -> None:
    expected = (
        address.is_loopback
        or address.is_link_local
        or address.is_multicast
        or int(address) >> 24 == 0
        or int(address) == 0xFFFF_FFFF
        or address in METADATA_ADDRESSES
    )
    assert (guard(address) is not None) is expected
