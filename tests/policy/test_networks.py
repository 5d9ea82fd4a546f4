from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doorward.policy.networks import AddressSet, NetworkIndex, PrefixIndex, parse_network


def small_networks() -> st.SearchStrategy[IPv4Network | IPv6Network]:
    """Networks around few addresses, so that they overlap and touch."""
    ipv4 = st.builds(lambda v, n: IPv4Network((v, n), strict=False), st.integers(0, 31), st.integers(26, 32))
    ipv6 = st.builds(
        lambda v, n: IPv6Network((v, n), strict=False), st.integers(0, 31), st.integers(122, 128)
    )
    return st.one_of(ipv4, ipv6, st.just(IPv4Network("0.0.0.0/0")), st.just(IPv6Network("::/0")))


SMALL_ADDRESSES = st.one_of(
    st.integers(0, 80).map(IPv4Address), st.integers(0, 80).map(IPv6Address), st.ip_addresses()
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10.0.0.0/8", ["10.0.0.0/8"]),
        (" 10.0.0.1 ", ["10.0.0.1/32"]),
        ("2001:db8::1", ["2001:db8::1/128"]),
        ("2001:DB8::/32", ["2001:db8::/32"]),
        ("0.0.0.0/0", ["0.0.0.0/0"]),
        ("10.0.0.1-10.0.0.4", ["10.0.0.1/32", "10.0.0.2/31", "10.0.0.4/32"]),
        ("10.0.0.7 - 10.0.0.7", ["10.0.0.7/32"]),
        ("0.0.0.0-255.255.255.255", ["0.0.0.0/0"]),
        ("::1-::3", ["::1/128", "::2/127"]),
        ("::ffff:10.0.0.0/104", ["10.0.0.0/8"]),
        ("::ffff:10.0.0.1", ["10.0.0.1/32"]),
        ("::/0", ["::/0"]),
    ],
)
def test_a_network_an_address_and_a_range_are_read(text: str, expected: list[str]) -> None:
    assert parse_network(text) == tuple(map(ip_network, expected))


def test_a_network_with_host_bits_names_the_one_that_was_meant() -> None:
    with pytest.raises(ValueError, match=r"did you mean 10\.0\.0\.0/8 or the address 10\.1\.2\.3\?"):
        parse_network("10.1.2.3/8")


def test_a_range_that_runs_backwards_names_the_one_that_was_meant() -> None:
    with pytest.raises(ValueError, match=r"did you mean 10\.0\.0\.1-10\.0\.0\.9\?"):
        parse_network("10.0.0.9-10.0.0.1")
    with pytest.raises(ValueError, match=r"did you mean ::1-::9\?"):
        parse_network("::9-::1")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "/8",
        "10.0.0.0/",
        "10.0.0.0/33",
        "10.0.0.0/-1",
        "10.0.0.0/\u0668",
        "10.0.0.0/255.0.0.0",
        "10.0.0.0/8/8",
        "::/129",
        "::/0000",
        "10.0.0",
        "010.0.0.1",
        "fe80::1%eth0",
        "10.0.0.1-::1",
        "10.0.0.1-",
        "-",
        "10.0.0.1-10.0.0.2-10.0.0.3",
        "10.0.0.0/8-11.0.0.0/8",
        "example.org",
        "1" * 5000,
        "10.0.0.0/" + "9" * 5000,
    ],
)
def test_what_is_no_network_is_refused_with_a_sentence(text: str) -> None:
    with pytest.raises(ValueError, match=r"^[a-z].*\w \w"):
        parse_network(text)


@given(st.text("0123456789abcdef.:/-% ", max_size=40))
def test_any_text_is_networks_or_a_mistake(text: str) -> None:
    try:
        networks = parse_network(text)
    except ValueError:
        return
    assert networks


@given(st.lists(small_networks(), max_size=12), SMALL_ADDRESSES)
def test_a_set_holds_exactly_the_addresses_of_its_networks(
    networks: list[IPv4Network | IPv6Network], address: IPv4Address | IPv6Address
) -> None:
    assert (address in AddressSet(networks)) is any(address in network for network in networks)


def test_ipv4_and_ipv6_are_kept_apart() -> None:
    everything_ipv6 = AddressSet([IPv6Network("::/0")])
    assert ip_address("10.0.0.1") not in everything_ipv6
    assert ip_address("::10.0.0.1") in everything_ipv6
    assert ip_address("255.255.255.255") in AddressSet([IPv4Network("0.0.0.0/0")])


@given(
    st.lists(st.tuples(small_networks(), st.integers(0, 9)), max_size=20),
    SMALL_ADDRESSES,
    st.integers(0, 128),
)
def test_the_index_answers_what_trying_every_network_answers(
    pairs: list[tuple[IPv4Network | IPv6Network, int]], address: IPv4Address | IPv6Address, length_min: int
) -> None:
    index = NetworkIndex(pairs)
    assert index.lookup([address]) == sorted({number for network, number in pairs if address in network})
    narrow = {number for network, number in pairs if address in network and network.prefixlen >= length_min}
    runs = index.runs(address, length_min)
    assert {number for run in runs for number in run} == narrow
    assert all(run == sorted(run) for run in runs)
    assert bool(index) == bool(pairs)


def test_a_look_up_joins_what_every_form_meets() -> None:
    index = NetworkIndex([(IPv4Network("10.0.0.0/8"), 3), (IPv6Network("2002::/16"), 1)])
    assert index.lookup([ip_address("2002:a00:1::"), ip_address("10.0.0.1")]) == [1, 3]


def test_a_prefix_of_no_bits_holds_every_value() -> None:
    index = PrefixIndex(16, [(0, 0, 5), (443, 16, 2)])
    assert index.runs(443) == [[5], [2]]
    assert index.runs(444) == [[5]]
