"""Fixtures for tests of net/: a poller on the running loop, a clock to turn by hand, and an eye on descriptors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from tests.net.certificates import Authority, usual
from tests.net.relay_world import MakeRelay, World
from tests.net.tls_client import Serve, serving
from tests.net.wires import Clock, open_descriptors, until

from doorward.net.poller import Poller


@pytest.fixture
async def poller(anyio_backend: str) -> AsyncIterator[Poller]:
    """A poller; whoever uses it leaves no descriptor, no watch and no task behind."""
    before = open_descriptors()
    poller = Poller(asyncio.get_running_loop())
    tasks = len(asyncio.all_tasks())
    yield poller
    assert len(poller) == 0, "somebody is still watched"
    poller.close()
    # A server that a test has in a thread may be a moment behind.
    await until(lambda: open_descriptors() <= before, "the end of every descriptor")
    assert len(asyncio.all_tasks()) <= tasks


@pytest.fixture
async def clock(anyio_backend: str, monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The running loop's time stands still until the test moves it."""
    loop = asyncio.get_running_loop()
    clock = Clock(loop.time())
    monkeypatch.setattr(loop, "time", clock)
    return clock


@pytest.fixture
async def world(anyio_backend: str, make_relay: MakeRelay) -> AsyncIterator[World]:
    """A relay with nothing in it; whatever a test does, no descriptor and no task are left behind."""
    before = open_descriptors()
    tasks = len(asyncio.all_tasks())
    world = World(make_relay)
    yield world
    world.close()
    assert open_descriptors() <= before
    assert len(asyncio.all_tasks()) <= tasks


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Certificates: see `certificates.usual`."""
    return usual(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
async def serve(poller: Poller, authority: Authority) -> AsyncIterator[Serve]:
    """Makes our server's TLS leg, and a client of the test's own: see `tls_client`."""
    async with serving(poller, authority) as serve:
        yield serve
