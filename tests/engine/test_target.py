"""Where a client wants to go: what it wrote, as what it is."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from doorward.engine.target import Target, target_of
from doorward.policy.address import BadHost


def test_a_name_stays_a_name_in_one_spelling() -> None:
    assert target_of("Example.ORG.", 443) == Target("example.org", None, 443)


@pytest.mark.parametrize("written", ["127.0.0.1", "127.1", "0x7f000001", "2130706433", "::ffff:127.0.0.1"])
def test_every_way_of_writing_an_address_is_that_address(written: str) -> None:
    assert target_of(written, 80) == Target(None, ip_address("127.0.0.1"), 80)


def test_an_address_that_came_in_four_or_sixteen_bytes_is_unwrapped_too() -> None:
    assert target_of(ip_address("::ffff:192.0.2.1"), 80) == Target(None, ip_address("192.0.2.1"), 80)


@pytest.mark.parametrize("written", ["", "a b", "x" * 300, "1.2.3.4.5"])
def test_what_is_neither_name_nor_address_is_refused(written: str) -> None:
    with pytest.raises(BadHost):
        target_of(written, 80)


@pytest.mark.parametrize(
    ("host", "shown"),
    [("a.test", "a.test:80"), ("192.0.2.1", "192.0.2.1:80"), ("2001:db8::1", "[2001:db8::1]:80")],
)
def test_a_target_is_shown_as_people_write_it(host: str, shown: str) -> None:
    assert str(target_of(host, 80)) == shown
