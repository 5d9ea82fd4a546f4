"""What several want of one port adds up to ranges that do not overlap."""

from __future__ import annotations

import asyncio

import pytest

from doorward.api.ip_filter import IpFilter
from doorward.packetfilter.client import HelperRefused
from doorward.packetfilter.model import Element
from doorward.service import kernel_openings
from doorward.service.kernel_openings import KernelOpenings

pytestmark = pytest.mark.anyio


class Kernel:
    """What is open in it; it refuses what is `unwanted`."""

    def __init__(self) -> None:
        self.open: list[Element] = []
        self.unwanted: set[str] = set()

    def ask(self, element: Element) -> asyncio.Future[None]:
        answer = asyncio.get_running_loop().create_future()
        if element.first in self.unwanted:
            answer.set_exception(HelperRefused("unwanted"))
        else:
            self.open.append(element)
            answer.set_result(None)
        return answer

    def close(self, element: Element) -> None:
        self.open.remove(element)


class World:
    def __init__(self) -> None:
        self.kernel = Kernel()
        self.said: list[str] = []
        self.openings = KernelOpenings(self.kernel, self.said.append)  # type: ignore[arg-type]

    def ranges(self) -> list[tuple[str, str]]:
        return sorted((element.first, element.last) for element in self.kernel.open)


async def test_ways_to_one_port_add_up_and_end_one_by_one() -> None:
    world = World()
    one = world.openings.way("tcp", ("10.2.0.1", 5000), IpFilter("10.2.0.2"))
    other = world.openings.way("tcp", ("10.2.0.1", 5000), IpFilter("10.2.0.2-10.2.0.9", "fd02::1"))
    assert world.ranges() == [("10.2.0.2", "10.2.0.9")], "and none of another IP version"
    one.close()
    one.close()
    assert world.ranges() == [("10.2.0.2", "10.2.0.9")]
    other.admit(IpFilter("10.2.0.5"))
    assert world.kernel.open == [Element("tcp", "10.2.0.5", "10.2.0.5", "10.2.0.1", 5000)]
    other.admit(None)
    assert world.kernel.open == [], "an unset filter admits nobody"
    other.admit(IpFilter.everybody())
    other.close()
    assert world.kernel.open == []


async def test_wildcards_are_any_of_our_addresses_and_loopback_none() -> None:
    world = World()
    world.openings.way("udp", ("::", 7), IpFilter.everybody())
    world.openings.way("udp", ("127.0.0.1", 7), IpFilter.everybody())
    last = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"
    assert world.kernel.open == [Element("udp", "::", last, None, 7)]


async def test_what_is_refused_stays_closed_and_is_said() -> None:
    world = World()
    world.kernel.unwanted = {"10.2.0.2"}
    way = world.openings.way("tcp", ("10.2.0.1", 1), IpFilter("10.2.0.2", "10.2.0.9"))
    await world.openings.settled()
    assert world.said == ["tcp port 1 stays closed to 10.2.0.2: unwanted"]
    way.close()
    assert world.kernel.open == []
    await world.openings.settled()


async def test_a_port_has_no_more_ranges_than_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_openings, "RANGES_MAX", 2)
    world = World()
    world.openings.way("tcp", ("10.2.0.1", 1), IpFilter("10.0.0.1", "10.0.0.3", "10.0.0.5"))
    assert world.ranges() == [("10.0.0.1", "10.0.0.1"), ("10.0.0.3", "10.0.0.3")]
    assert "3 ranges" in world.said[0]
