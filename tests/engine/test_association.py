"""Which filters hear of a connection, and in which order."""

from __future__ import annotations

import pytest
from tests.engine.rig import Plugin

from doorward.api import ANY, ClientKind, Interest, Scope
from doorward.engine.association import REMEMBERED_MAX, Associations, FilterEntry, Way, wanted
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
    assert names(associations.of(Way("tcp", 80, None, ClientKind.SOCKS), None)) == ["b", "a", "c"]
    assert names(associations.of(Way("tcp", 80, None, ClientKind.SOCKS), None)) == ["b", "a", "c"]


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
    assert bool(associations.of(Way("tcp", port, application, ClientKind.SOCKS), None)) is joins


def test_a_filter_for_one_kind_of_client_does_not_hear_of_another() -> None:
    associations = Associations([of("it", clients=(ClientKind.HTTP,))], PROTOCOLS)
    assert not associations.of(Way("tcp", 80, None, ClientKind.SOCKS), None)
    assert associations.of(Way("tcp", 80, None, ClientKind.HTTP), None)


@pytest.mark.parametrize(
    ("scope", "heard"),
    [(Scope.PRIMARY, [False]), (Scope.SECONDARY, [True]), (Scope.ANY, [False, True])],
)
def test_a_filter_hears_of_the_connections_of_its_scope(scope: Scope, heard: list[bool]) -> None:
    interest = Interest.of("http", scope=scope)
    it = FilterEntry("it", Plugin("it", []), interest, *wanted(interest, PROTOCOLS))
    associations = Associations([it], PROTOCOLS)
    ways = {secondary: Way("tcp", 80, None, ClientKind.SOCKS, secondary) for secondary in (False, True)}
    assert [secondary for secondary, way in ways.items() if associations.of(way, None)] == heard


def test_a_filter_of_a_datagram_protocol_does_not_hear_of_streams() -> None:
    associations = Associations([of("it", "dns")], PROTOCOLS)
    assert associations.of(Way("udp", 53, None, ClientKind.SOCKS), None)
    assert not associations.of(Way("tcp", 53, None, ClientKind.SOCKS), None)


def test_sockets_of_filters_are_heard_of_only_by_who_asks_for_them() -> None:
    way = Way("tcp", 80, None, ClientKind.FILTER)
    unasked = FilterEntry(
        "it", Plugin("it", []), Interest.of("http"), *wanted(Interest.of("http"), PROTOCOLS)
    )
    assert not Associations([unasked], PROTOCOLS).of(way, None)
    assert Associations([of("it", "http", clients=(ClientKind.FILTER,))], PROTOCOLS).of(way, None)


def test_a_rule_may_turn_a_filter_off_for_its_traffic() -> None:
    it = FilterEntry("it", Plugin("it", []), Interest(), off=frozenset({"quiet"}))
    associations = Associations([it], PROTOCOLS)
    way = Way("tcp", 80, None, ClientKind.SOCKS)
    assert [bool(associations.of(way, rule)) for rule in ("quiet", "loud", None)] == [False, True, True]


def test_what_a_filter_made_of_its_settings_is_found_by_the_rule() -> None:
    it = FilterEntry("it", Plugin("it", []), Interest(), rule_settings={None: "its own", "strict": "strict"})
    assert [it.settings_of(rule) for rule in ("strict", "loud", None)] == ["strict", "its own", "its own"]


def test_without_filters_there_is_nothing_to_ask() -> None:
    assert Associations([], PROTOCOLS).of(Way("tcp", 80, None, ClientKind.SOCKS), None) == ()


def test_a_connection_is_called_what_the_front_end_knows_else_the_first_protocol_with_its_port() -> None:
    associations = Associations([], PROTOCOLS)
    assert associations.protocol("tcp", 8080, None) == "http"
    assert associations.protocol("tcp", 8080, "alt") == "alt"
    assert associations.protocol("tcp", 9, None) is None
    assert associations.protocol("tcp", 9, None) is None


def test_somebody_who_scans_ports_fills_no_memory() -> None:
    associations = Associations([of("it")], PROTOCOLS)
    for port in range(REMEMBERED_MAX + 10):
        assert associations.of(Way("tcp", port, None, ClientKind.SOCKS), None)
        associations.protocol("tcp", port, None)
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


def test_a_transport_alone_is_every_port_of_it() -> None:
    assert wanted(Interest.of("tcp-in", "dns"), PROTOCOLS) == (
        (PortRange("tcp-in", 0, 65_535), PortRange("udp", 53, 53)),
        frozenset({"dns"}),
    )
