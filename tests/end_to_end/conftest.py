"""Running firewalls for end-to-end tests: each in a directory of its own, each ended in order and without an error."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.end_to_end.running import RunningFirewall

StartFirewall = Callable[..., RunningFirewall]


@pytest.fixture
def start_firewall() -> Iterator[StartFirewall]:
    """Starts firewalls: `start_firewall(policy)`, with the keywords of `RunningFirewall`."""
    with starting_firewalls() as start:
        yield start


@pytest.fixture(scope="module")
def firewall() -> Iterator[RunningFirewall]:
    """One firewall that allows everything on this machine, for all tests of a file: look for your own records."""
    with starting_firewalls() as start:
        yield start()


@contextmanager
def starting_firewalls() -> Iterator[StartFirewall]:
    """What the fixtures are made of; each firewall it started is ended at the end, in order and without an error."""
    firewalls: list[RunningFirewall] = []

    def start(*arguments: Any, files: dict[str, str] | None = None, **keywords: Any) -> RunningFirewall:
        # pytest's own directories can be too long for the name of a Unix socket.
        home = Path(tempfile.mkdtemp(prefix="doorward-"))
        for name, text in (files or {}).items():
            (home / name).write_text(text)
        try:
            firewall = RunningFirewall(home, *arguments, **keywords)
        except BaseException:
            shutil.rmtree(home)
            raise
        firewalls.append(firewall)
        return firewall

    yield start
    failures: list[AssertionError] = []
    for firewall in firewalls:
        try:
            firewall.end()
        except AssertionError as failure:
            failures.append(failure)
        shutil.rmtree(firewall.home, ignore_errors=True)
    if failures:
        raise failures[0]


@pytest.fixture(scope="session")
def program() -> Callable[[str], str]:
    """The path of a program; skips the test, visibly, where it is not installed."""

    def find(name: str) -> str:
        found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
        if found is None:
            pytest.skip(f"{name} is not installed")
        return found

    return find
