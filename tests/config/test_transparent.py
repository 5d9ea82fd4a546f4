"""`[transparent]` as an object; what is wrong with one is in the golden file `transparent.txt`."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path

from doorward.config.loading import read_bytes
from doorward.config.model import Transparent

POLICY = """
[networks]
lan = ["10.1.0.0/16", "fd01::/64"]
dmz = ["203.0.113.0/24"]
[transparent]
interfaces = ["lan0", "lan0", "wlan0.7"]
networks = ["network:lan", "10.2.0.1"]
method = "redirect"
port = 1090
udp = false
dns = "policy"
keep_source = ["network:dmz", "::/0"]
"""


def read(text: str) -> Transparent | None:
    reading = read_bytes(text.encode(), Path("/nowhere/doorward.toml"))
    assert reading.configuration is not None, reading.problems
    assert reading.problems == ()
    return reading.configuration.transparent


def test_a_table_becomes_an_object_with_every_name_replaced() -> None:
    found = read(POLICY)
    assert found == Transparent(
        interfaces=("lan0", "wlan0.7"),
        networks=(ip_network("10.1.0.0/16"), ip_network("fd01::/64"), ip_network("10.2.0.1")),
        port=1090,
        method="redirect",
        udp=False,
        dns="policy",
        keep_source=(ip_network("203.0.113.0/24"), ip_network("::/0")),
    )
    assert found.line == 5


def test_what_is_left_out_has_its_default() -> None:
    found = read('[transparent]\ninterfaces = ["lan0"]\nnetworks = ["10.0.0.0/8"]\n')
    assert found is not None
    assert (found.port, found.method, found.udp, found.dns, found.keep_source) == (
        1081,
        "tproxy",
        True,
        "answer",
        (),
    )
    assert read("") is None


def test_where_it_stands_in_the_file_makes_it_no_other() -> None:
    assert read(POLICY) == read("# one line more\n" + POLICY)


def test_the_example_is_a_whole_policy_without_a_doubt() -> None:
    path = Path(__file__).parents[2] / "examples" / "gateway.toml"
    found = read(path.read_text())
    assert found is not None
    assert found.keep_source == (ip_network("203.0.113.0/24"),)
