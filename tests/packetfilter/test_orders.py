"""Openings as orders; whole tables stand in test_writing."""

from __future__ import annotations

from typing import Any

from tests.packetfilter.tables import HOLE, HOLE6, WEB, table_of

from doorward.packetfilter import orders
from doorward.packetfilter.writing import lay_out


def test_a_table_takes_the_place_of_another_in_one_transaction() -> None:
    found = orders.load(lay_out(table_of(WEB)))
    assert found[:3] == [*orders.REMOVE, {"add": {"table": {"family": "inet", "name": "doorward"}}}]
    kinds = [next(iter(next(iter(order.values())))) for order in found[3:]]
    assert kinds == sorted(kinds, key=["chain", "counter", "set", "map", "rule"].index), (
        "made before it is used"
    )


def test_openings_begin_anew_with_their_time() -> None:
    short: list[Any] = orders.open_elements([(HOLE, 30.0), (HOLE6, 0.2)])
    assert [next(iter(order)) for order in short] == ["add"] * 2
    found: list[Any] = orders.open_elements([(HOLE, 30.0), (HOLE6, 0.2)], anew=True)
    assert [next(iter(order)) for order in found] == ["add", "delete", "add"] * 2
    element = found[0]["add"]["element"]
    assert (element["name"], element["elem"][0]["elem"]["timeout"]) == ("open4", 30)
    assert element["elem"][0]["elem"]["val"] == {"concat": ["10.2.0.2", "tcp", "10.2.0.1", 5000]}
    other = found[3]["add"]["element"]["elem"][0]["elem"]
    assert other["timeout"] == 1, "never none: that would be for ever"
    assert other["val"]["concat"][0] == {"range": ["fd02::", "fd02::ff"]}
    assert other["val"]["concat"][2] == {"prefix": {"addr": "::", "len": 0}}


def test_closing_does_not_mind_what_has_run_out() -> None:
    found: list[Any] = orders.close_elements([HOLE])
    assert [next(iter(order)) for order in found] == ["add", "delete"]
    assert orders.close_elements([]) == orders.open_elements([]) == []
