"""`[[publish]]` as objects; what is wrong with one is in the golden file `publish.txt`."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doorward.config.loading import read_bytes
from doorward.config.model import HealthChecks, Published, PublishedAddress
from doorward.config.publish import parse_published, parse_server

POLICY = """
[networks]
partners = ["198.51.100.0/24", "203.0.113.7"]
[schedules.office]
hours = ["07:00-18:00"]
[[publish]]
name = "mail"
listen = ["tcp/0.0.0.0:25", "tcp/[::]:25"]
to = ["10.0.0.5:2525", "[2001:db8::5]:25"]
from = ["network:partners", "192.0.2.1"]
when = ["office"]
protocol = "smtp"
proxy_protocol = { read = ["10.9.0.0/16"], write = "v1" }
balance = "client"
health = { interval_s = 5 }
"""


def published(text: str) -> tuple[Published, ...]:
    reading = read_bytes(text.encode(), Path("/nowhere/doorward.toml"))
    assert reading.configuration is not None, reading.problems
    return reading.configuration.published


def test_a_table_becomes_an_object_with_every_name_replaced() -> None:
    (found,) = published(POLICY)
    assert found == Published(
        name="mail",
        listen=(
            PublishedAddress("tcp", ip_address("0.0.0.0"), 25),
            PublishedAddress("tcp", ip_address("::"), 25),
        ),
        to=((ip_address("10.0.0.5"), 2525), (ip_address("2001:db8::5"), 25)),
        sources=(ip_network("198.51.100.0/24"), ip_network("203.0.113.7"), ip_network("192.0.2.1")),
        windows=found.windows,
        protocol="smtp",
        headers_from=(ip_network("10.9.0.0/16"),),
        header_version=1,
        balance="client",
        health=HealthChecks(5.0, 2.0, None),
    )
    assert found.windows
    assert found.line == 6
    assert not found.keeps_source


def test_what_is_left_out_has_its_default() -> None:
    (found,) = published(
        '[[publish]]\nname = "web"\nlisten = ["tcp/127.0.0.1:80"]\nto = ["10.0.0.5:80"]\nfrom = ["0.0.0.0/0"]\n'
    )
    assert (found.windows, found.protocol, found.headers_from, found.header_version) == (None, None, (), None)
    assert (found.balance, found.health, found.keeps_source) == ("first", None, False)


def test_where_it_stands_in_the_file_makes_it_no_other() -> None:
    (before,), (after,) = published(POLICY), published("# one line more\n" + POLICY)
    assert before == after
    assert before.line != after.line
    assert hash(before) == hash(after)


def test_a_network_that_only_a_published_server_names_is_used() -> None:
    reading = read_bytes(POLICY.encode(), Path("/nowhere/doorward.toml"))
    assert reading.problems == ()


def test_its_settings_of_filters_go_by_its_name() -> None:
    text = '[[filter]]\nname = "ftp"\nuse = "ftp"\n' + POLICY + "filters.ftp = { read_only = true }\n"
    reading = read_bytes(text.encode(), Path("/nowhere/doorward.toml"))
    assert reading.configuration is not None, reading.problems
    ((setting,),) = (setting.rules for setting in reading.configuration.filters)
    assert (setting.rule, setting.settings) == ("mail", {"read_only": True})


@pytest.mark.parametrize("text", ["tcp/192.0.2.1:443", "udp/[2001:db8::1]:53", "tcp/0.0.0.0:0"])
def test_an_address_is_shown_as_it_is_written(text: str) -> None:
    assert str(parse_published(text)) == text


def test_a_server_in_disguise_is_what_it_is() -> None:
    assert parse_server("[::ffff:10.0.0.5]:80") == (ip_address("10.0.0.5"), 80)


@given(st.text(max_size=30) | st.from_regex(r"(tcp|udp)?/?\[?[0-9a-f:.]{0,20}\]?:[0-9]{0,6}"))
def test_any_text_is_an_address_or_a_sentence(text: str) -> None:
    for parse in (parse_published, parse_server):
        try:
            parse(text)
        except ValueError as mistake:
            sentence = str(mistake)
        else:
            continue
        assert len(sentence.split()) > 3
