"""Probes: a server that comes, goes, and does not answer."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

import pytest
from tests.engine.publishing.houses import Street
from tests.engine.rig import wait_for

from doorward.api.errors import OutOfResources
from doorward.config.model import HealthChecks
from doorward.engine.publishing import probing
from doorward.engine.publishing.probing import probe

pytestmark = pytest.mark.anyio

OFTEN = HealthChecks(0.02, 2.0)


async def test_a_server_that_goes_and_comes_is_found_out_and_visitors_are_led_past_it(
    make_street: Callable[..., Street],
) -> None:
    street = make_street()
    first, second = street.rig.another_server(), street.rig.another_server()
    first.close()
    house = await street.open(first, second, health=OFTEN)
    machine = house.servers.every[0]
    await wait_for(lambda: machine.is_down, "it is down")
    assert street.changes[0][0] == machine.name
    assert "probe of port" in street.changes[0][1]
    street.visit(house)
    async with asyncio.timeout(5):
        while True:  # probes come as well, and say nothing
            wire = street.rig.keep(await second.accept())
            if house.session.connections > 1:
                break
    assert wire is not None
    with socket.create_server(("127.0.0.1", first.port)):
        await wait_for(lambda: machine.is_well, "it is well again")
    assert [name for name, _ in street.changes] == [
        machine.name
    ]  # that it is back is told when some time has passed


async def test_another_port_may_be_probed(make_street: Callable[..., Street]) -> None:
    street = make_street()
    checked = street.rig.another_server()
    house = street.house(1, health=HealthChecks(60.0, 2.0, checked.port))
    street.rig.keep(await checked.accept())
    assert house.servers.every[0].is_well


async def test_probes_end_with_the_published_server(make_street: Callable[..., Street]) -> None:
    street = make_street()
    house = await street.open(health=OFTEN)
    await street.came()
    house.close()
    await asyncio.sleep(0)
    before = asyncio.all_tasks()
    assert not [task for task in before if task.get_name() == "probe of a published server"]


async def test_one_that_is_closed_at_once_is_never_probed(make_street: Callable[..., Street]) -> None:
    street = make_street()
    house = street.house(health=OFTEN)
    house.end()
    for _ in range(10):
        await asyncio.sleep(0)
    assert street.rig.server.nobody_came()
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "probe of a published server"]


async def test_a_lack_of_descriptors_says_nothing_about_the_server(
    make_street: Callable[..., Street], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def short(*_: object) -> None:
        raise OutOfResources("none left")

    street = make_street()
    house = await street.open()
    monkeypatch.setattr(probing, "dial", short)
    await probe(street.rig.poller, house.servers, house.servers.every[0], OFTEN)
    assert house.servers.every[0].is_well
