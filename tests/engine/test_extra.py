"""Names that filters give for addresses: what they are, or refused."""

from __future__ import annotations

import pytest

from doorward.api import BadArgument
from doorward.engine.extra import Extra, checked_name, client_name
from doorward.engine.session import Session


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (("192.0.2.1", 0), ("192.0.2.1", 0)),
        (("192.0.2.1", 65_535), ("192.0.2.1", 65_535)),
        (("2001:DB8:0::1", 1), ("2001:db8::1", 1)),
    ],
)
def test_a_name_is_written_in_one_way(given: tuple[str, int], meant: tuple[str, int]) -> None:
    assert checked_name(given) == meant


@pytest.mark.parametrize(
    "name",
    [
        ("", 1),
        ("example.org", 1),
        ("192.0.2.1", -1),
        ("192.0.2.1", 65_536),
        ("192.0.2.1 ", 1),
        ("192.0.2", 1),
    ],
)
def test_what_is_no_name_is_refused(name: tuple[str, int]) -> None:
    with pytest.raises(BadArgument):
        checked_name(name)


@pytest.mark.parametrize("address", ["192.0.2.1", "::ffff:192.0.2.1"])
def test_peers_are_led_to_the_sessions_own_address_only(address: str) -> None:
    session = Session(1, "192.0.2.1", None, frozenset())
    assert client_name(session, (address, 80)) == ("192.0.2.1", 80)
    for other in (("192.0.2.2", 80), ("127.0.0.1", 80), ("192.0.2.1", 0), ("name.test", 80)):
        with pytest.raises(BadArgument):
            client_name(session, other)


def test_nothing_is_set_before_anybody_sets_it() -> None:
    extra = Extra()
    assert not extra.promises
    assert not any(getattr(extra, name) for name in Extra.__slots__)
