"""What is kept, for whom, and what the kernel is asked."""

from __future__ import annotations

import pytest
from tests.packetfilter.tables import HOLE, HOLE6, WEB, RememberingNft, table_of

from doorward.packetfilter import keeper as module
from doorward.packetfilter.keeper import Keeper
from doorward.packetfilter.messages import Opening
from doorward.packetfilter.nft import NftRefused

TABLE = table_of(WEB)


class World:
    def __init__(self) -> None:
        self.nft = RememberingNft()
        self.now = 0.0
        self.keeper = Keeper(self.nft, lambda: self.now)

    def last(self) -> str:
        return str(self.nft.transactions[-1])


def test_what_is_open_goes_into_a_new_table_with_the_time_that_is_left() -> None:
    world = World()
    world.keeper.change("a", [Opening(HOLE, 30.0)], [])
    world.now = 10.0
    world.keeper.load("b", TABLE, [Opening(HOLE6, 5.0)])
    assert "'timeout': 20" in world.last()
    assert "'timeout': 5" in world.last()
    world.now = 31.0
    world.keeper.load("b", TABLE, [])
    assert "timeout'" not in world.last().replace("'timeout']", ""), "it has run out"


def test_an_opening_of_two_ends_with_the_second() -> None:
    world = World()
    for holder in ("a", "b"):
        world.keeper.change(holder, [Opening(HOLE, 30.0)], [])
    count = len(world.nft.transactions)
    world.keeper.forget("a")
    assert len(world.nft.transactions) == count
    world.keeper.change("b", [], [HOLE])
    assert "delete" in world.last()
    world.keeper.forget("b")
    world.keeper.forget("nobody")


def test_who_closes_what_another_holds_closes_nothing() -> None:
    world = World()
    for holder in ("a", "b"):
        world.keeper.change(holder, [Opening(HOLE, 30.0)], [])
    world.keeper.change("a", [], [HOLE])
    assert world.nft.transactions[-1] == []


def test_nobody_closes_what_others_have_opened() -> None:
    world = World()
    world.keeper.change("a", [Opening(HOLE, 30.0)], [])
    world.keeper.change("b", [], [HOLE])
    assert world.nft.transactions[-1] == []


def test_one_that_the_kernel_refuses_does_not_keep_the_others_out() -> None:
    world = World()
    world.keeper.change("a", [Opening(HOLE, 30.0)], [])
    world.nft.unwanted = ["fd02::ff"]
    other = Opening(HOLE.__class__("tcp", "10.2.0.9", "10.2.0.9", None, 1), 30.0)
    assert world.keeper.change("a", [Opening(HOLE6, 30.0), other], [HOLE]) == [HOLE6]
    assert "10.2.0.9" in world.last()
    assert any("delete" in str(t) and HOLE.first in str(t) for t in world.nft.transactions[1:])


def test_a_table_that_is_refused_changes_nothing() -> None:
    world = World()
    world.keeper.load("a", TABLE, [Opening(HOLE, 30.0)])
    world.nft.unwanted = ["prerouting"]
    with pytest.raises(NftRefused):
        world.keeper.load("a", table_of(), [])
    assert world.keeper.table is TABLE
    world.nft.unwanted = []
    world.keeper.forget("a")
    assert HOLE.first in world.last(), "it was still open"


def test_there_is_a_most(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    monkeypatch.setattr(module, "ELEMENTS_MAX", 1)
    world.keeper.change("a", [Opening(HOLE, 30.0)], [])
    with pytest.raises(NftRefused, match="more than 1"):
        world.keeper.change("a", [Opening(HOLE6, 30.0)], [])


def test_counters_are_those_of_this_table() -> None:
    world = World()
    ours = {"family": "inet", "table": "doorward", "name": "o1", "packets": 7}
    world.nft.listed = [
        {"counter": ours},
        {"counter": {**ours, "table": "other", "name": "x"}},
        {"table": {}},
    ]
    assert world.keeper.counters() == {"o1": 7}
    world.nft.unwanted = ["counters"]
    assert world.keeper.counters() == {}


def test_a_beginning_closes_what_was_open_and_does_not_mind_if_there_is_no_table() -> None:
    world = World()
    world.keeper.begin()
    assert [next(iter(order)) for order in world.nft.transactions[0]] == ["flush", "flush"]
    world.nft.unwanted = ["flush"]
    world.keeper.begin()


@pytest.mark.parametrize("renews", [True, False])
def test_a_lease_is_prolonged_as_the_kernel_can(renews: bool) -> None:
    nft = RememberingNft()
    keeper = Keeper(nft, lambda: 0.0, renews=renews)
    for _ in range(2):
        keeper.change("a", [Opening(HOLE, 30.0)], [])
    add, anew = [("add", "element")], [("add", "element"), ("delete", "element"), ("add", "element")]
    assert nft.words() == [add, add if renews else anew]
