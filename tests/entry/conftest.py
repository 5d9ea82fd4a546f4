"""Fixtures of the front ends' tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from doorward.net import native_datagrams, native_relay


@pytest.fixture(params=["python", "native"])
def moved_by(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Who moves datagrams that nobody reads; native code from a destination's first one on. No thread is left."""
    mover: str = request.param
    if mover == "python":
        monkeypatch.setattr("doorward.service.firewall.make_courier", lambda _: None)
    elif not native_datagrams.is_available():
        pytest.skip("doorward_native is not built: make native")
    else:
        monkeypatch.setattr("doorward.engine.udp.mapping.ASKS_MASK", 0)
    before = _threads("datagrams")
    yield mover
    assert _threads("datagrams") <= before


@pytest.fixture(params=["python", "front"])
def way_in(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Who accepts clients and hears them out: a listener in Python, or native code. No thread is left."""
    way: str = request.param
    come_in_by(way, monkeypatch)
    before = _threads("front")
    yield way
    assert _threads("front") <= before


def come_in_by(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Firewalls that are made from now on have this way in."""
    if not native_relay.is_available():
        if way == "front":
            pytest.skip("doorward_native is not built: make native")
    elif way == "python":
        monkeypatch.setattr("doorward.service.front_door.NativeRelay", _NoRelay)


class _NoRelay:
    """What no relay is: there is no front without a native one."""


def _threads(name: str) -> int:
    """Threads of this name. Python does not know them, the kernel does."""
    found = 0
    for task in Path("/proc/self/task").iterdir():
        try:
            found += (task / "comm").read_text() == f"{name}\n"
        except OSError:
            continue  # it has ended meanwhile
    return found
