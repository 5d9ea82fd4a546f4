"""Which filters hear of a connection, and in which order."""

from __future__ import annotations

import pytest
from tests.engine.rig import Plugin

from doorward.api import ANY, ClientKind, Interest
from doorward.engine.association import REMEMBERED_MAX, Associations, FilterEntry, wanted
from doorward.policy.model import PortRange, Protocols

WEB = (PortRange("tcp", 80, 80), PortRange("tcp", 8000, 8999))
PROTOCOLS = Protocols(
    {"http": WEB, "alt": (PortRange("tcp", 8080, 8080),), "dns": (PortRange("udp", 53, 53),)}
)


def of(name: str, *protocols: str, clients: tuple[ClientKind, ...] = tuple(ClientKind)) -> FilterEntry:
    interest = Interest.of(*protocols, clients=clients)
    return FilterEntry(name, Plugin(name, []), interest, *wanted(interest, PROTOCOLS))


def names(found: tuple[FilterEntry, ...]) -> list[str]:
    return [entry.name for entry in found]


def test_the_order_is_that_of_the_policy_file() -> None:
    associations = Associations([of("b"), of("a", "http"), of("c", "tcp/80")], PROTOCOLS)
    assert names(associations.of(80, None, ClientKind.SOCKS)) == ["b", "a", "c"]
    assert names(associations.of(80, None, ClientKind.SOCKS)) == ["b", "a", "c"]


@pytest.mark.parametrize(
    ("protocol", "port", "application", "joins"),
    [
        ("http", 80, None, True),
        ("http", 8500, None, True),
        ("http", 443, None, False),
        ("http", 443, "http", True),  # the front end knows better than the port
        ("http", 80, "alt", True),
        ("tcp/443", 443, None, True),
        ("tcp/400-500", 500, None, True),
        ("tcp/400-500", 501, None, False),
        ("dns", 53, None, False),  # another transport
        (ANY, 1, None, True),
    ],
)
def test_a_filter_joins_what_it_is_associated_with(
    protocol: str, port: int, application: str | None, joins: bool
) -> None:
    associations = Associations([of("it", protocol)], PROTOCOLS)
    assert bool(associations.of(port, application, ClientKind.SOCKS)) is joins


def test_a_filter_for_one_kind_of_client_does_not_hear_of_another() -> None:
    associations = Associations([of("it", clients=(ClientKind.HTTP,))], PROTOCOLS)
    assert not associations.of(80, None, ClientKind.SOCKS)
    assert associations.of(80, None, ClientKind.HTTP)


def test_without_filters_there_is_nothing_to_ask() -> None:
    assert Associations([], PROTOCOLS).of(80, None, ClientKind.SOCKS) == ()


def test_a_connection_is_called_what_the_front_end_knows_else_the_first_protocol_with_its_port() -> None:
    associations = Associations([], PROTOCOLS)
    assert associations.protocol(8080, None) == "http"
    assert associations.protocol(8080, "alt") == "alt"
    assert associations.protocol(9, None) is None
    assert associations.protocol(9, None) is None


def test_somebody_who_scans_ports_fills_no_memory() -> None:
    associations = Associations([of("it")], PROTOCOLS)
    for port in range(REMEMBERED_MAX + 10):
        assert associations.of(port, None, ClientKind.SOCKS)
        associations.protocol(port, None)
    assert len(associations._remembered) <= REMEMBERED_MAX
    assert len(associations._names) <= REMEMBERED_MAX


@pytest.mark.parametrize(
    "word",
    [
        "https",
        "tcp/",
        "tcp/x",
        "sctp/80",
        "tcp/80-",
        "tcp/-80",
        "tcp/9-8",
        "tcp/65536",
        "tcp/1-65536",
        "tcp/٨٠",
    ],
)
def test_a_protocol_that_nobody_can_mean_is_refused(word: str) -> None:
    with pytest.raises(ValueError, match=word.partition("/")[0]):
        wanted(Interest.of(word), PROTOCOLS)


def test_any_among_others_is_everything() -> None:
    assert wanted(Interest.of("http", ANY), PROTOCOLS) == (None, None)
