from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any

import pytest

from doorward.api.errors import OutOfResources
from doorward.config.model import User
from doorward.entry import authentication
from doorward.entry.authentication import REMEMBERED_S, WAITING_PER_CLIENT_MAX, Authenticator
from doorward.wire.credentials import Credentials

pytestmark = pytest.mark.anyio

KIM = User("kim", "the hash of right", frozenset({"staff"}))
RIGHT = Credentials("kim", "right")


class Checker:
    """Stands in for the slow comparison of hashes, and counts."""

    def __init__(self) -> None:
        self.calls = 0
        self.go_on = threading.Event()
        self.go_on.set()
        self.now_s = 0.0
        self._loop = asyncio.get_running_loop()
        self.called = asyncio.Event()

    def verify(self, hashed: str, password: str) -> bool:
        self.calls += 1
        self._loop.call_soon_threadsafe(self.called.set)
        assert self.go_on.wait(10)
        return hashed == f"the hash of {password}"

    def authenticator(self, *users: User) -> Authenticator:
        return Authenticator({user.name: user for user in users or (KIM,)}, lambda: self.now_s, self.verify)


def started(checking: Coroutine[Any, Any, User | None]) -> asyncio.Task[User | None]:
    """Under way; the test waits for it."""
    return asyncio.get_running_loop().create_task(checking)


async def test_the_right_password_identifies_and_is_remembered_for_a_while() -> None:
    checker = Checker()
    authenticator = checker.authenticator()
    assert await authenticator.identify(RIGHT, "192.0.2.1") is KIM
    assert await authenticator.identify(RIGHT, "192.0.2.2") is KIM
    assert checker.calls == 1
    checker.now_s += REMEMBERED_S
    assert await authenticator.identify(RIGHT, "192.0.2.1") is KIM
    assert checker.calls == 2
    authenticator.close()


@pytest.mark.parametrize(
    "credentials", [Credentials("kim", "wrong"), Credentials("nobody", "right"), Credentials("kim", "")]
)
async def test_a_wrong_one_does_not_and_costs_as_much_each_time(credentials: Credentials) -> None:
    checker = Checker()
    authenticator = checker.authenticator()
    for count in (1, 2):
        assert await authenticator.identify(credentials, "192.0.2.1") is None
        assert checker.calls == count  # an unknown name as well: names cannot be told apart by time
    authenticator.close()


async def test_name_and_password_are_not_run_together() -> None:
    checker = Checker()
    authenticator = checker.authenticator(KIM, User("kimr", "the hash of x"))
    assert await authenticator.identify(RIGHT, "192.0.2.1") is KIM
    assert await authenticator.identify(Credentials("kimr", "ight"), "192.0.2.1") is None
    authenticator.close()


async def test_a_reload_forgets_what_was_remembered() -> None:
    checker = Checker()
    authenticator = checker.authenticator()
    await authenticator.identify(RIGHT, "192.0.2.1")
    other = User("kim", "the hash of other")
    authenticator.replace({"kim": other})
    assert await authenticator.identify(RIGHT, "192.0.2.1") is None
    assert await authenticator.identify(Credentials("kim", "other"), "192.0.2.1") is other
    authenticator.close()


async def test_a_check_that_a_reload_overtakes_is_not_remembered() -> None:
    checker = Checker()
    authenticator = checker.authenticator()
    checker.go_on.clear()
    checking = started(authenticator.identify(RIGHT, "192.0.2.1"))
    await checker.called.wait()
    authenticator.replace({"kim": User("kim", "the hash of other")})
    checker.go_on.set()
    await checking
    assert await authenticator.identify(RIGHT, "192.0.2.1") is None
    authenticator.close()


async def test_one_client_cannot_fill_the_queue_and_what_it_held_is_given_back() -> None:
    checker = Checker()
    authenticator = checker.authenticator()
    checker.go_on.clear()
    wrong = Credentials("kim", "wrong")
    checking = [started(authenticator.identify(wrong, "192.0.2.1")) for _ in range(WAITING_PER_CLIENT_MAX)]
    await asyncio.sleep(0)
    with pytest.raises(OutOfResources):
        await authenticator.identify(RIGHT, "192.0.2.1")
    other = started(authenticator.identify(RIGHT, "192.0.2.2"))
    checker.go_on.set()
    assert await asyncio.gather(*checking) == [None] * WAITING_PER_CLIENT_MAX
    assert await other is KIM
    assert await authenticator.identify(RIGHT, "192.0.2.1") is KIM
    authenticator.close()


async def test_the_queue_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authentication, "WAITING_MAX", 2)
    checker = Checker()
    authenticator = checker.authenticator()
    checker.go_on.clear()
    checking = [started(authenticator.identify(RIGHT, f"192.0.2.{n}")) for n in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(OutOfResources):
        await authenticator.identify(RIGHT, "192.0.2.9")
    checker.go_on.set()
    await asyncio.gather(*checking)
    authenticator.close()


async def test_the_memory_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authentication, "REMEMBERED_MAX", 2)
    checker = Checker()
    users = [User(f"u{n}", "the hash of p") for n in range(3)]
    authenticator = checker.authenticator(*users)
    for name in ("u0", "u1", "u2", "u0"):
        assert await authenticator.identify(Credentials(name, "p"), "192.0.2.1") is not None
    assert checker.calls == 4
    authenticator.close()
