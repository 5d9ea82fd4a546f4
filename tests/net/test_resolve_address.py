"""The names of an address: asked for in the same threads, with a deadline and a cap, and never left behind."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator
from ipaddress import ip_address

import pytest
from tests.net.wires import until

from doorward.api.errors import DoorwardError, LinkError, NameNotFound, OutOfResources, Side, TimedOut
from doorward.net import resolve
from doorward.net.resolve import ADDRESSES_MAX, Resolver, system_lookup, system_lookup_back

pytestmark = pytest.mark.anyio

ADDRESS = ip_address("192.0.2.1")


class Names:
    """A resolver whose look-ups are counted, and held up while `gate` is shut."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answer: tuple[str, ...] | Exception = ("one.test", "other.test")
        self.gate = threading.Event()
        self.gate.set()
        self.resolver = Resolver(5, system_lookup, self._lookup_back)

    def begin(self) -> asyncio.Task[tuple[str, ...]]:
        return asyncio.get_running_loop().create_task(self.resolver.resolve_address(ADDRESS))

    def _lookup_back(self, address: str) -> tuple[str, ...]:
        self.asked.append(address)
        self.gate.wait(5)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
async def names() -> AsyncIterator[Names]:
    names = Names()
    yield names
    names.gate.set()
    await until(lambda: not names.resolver._asking_back)
    names.resolver.close()


async def test_every_name_of_an_address_is_told_and_asked_for_each_time(names: Names) -> None:
    for _ in range(2):
        assert await names.resolver.resolve_address(ADDRESS) == ("one.test", "other.test")
    assert names.asked == ["192.0.2.1"] * 2


@pytest.mark.parametrize("error", [NameNotFound("none", side=Side.EXTERNAL), ZeroDivisionError()])
async def test_a_failure_is_raised_to_who_asked(names: Names, error: Exception) -> None:
    names.answer = error
    with pytest.raises(type(error)):
        await names.resolver.resolve_address(ADDRESS)


async def test_an_answer_that_does_not_come_is_waited_for_no_longer_than_the_deadline(names: Names) -> None:
    names.gate.clear()
    names.resolver.timeout_s = 0.02
    with pytest.raises(TimedOut) as caught:
        await names.resolver.resolve_address(ADDRESS)
    assert caught.value.side is Side.EXTERNAL
    assert names.resolver._asking_back == 1


async def test_one_who_gives_up_frees_nothing_before_its_thread_is_done(names: Names) -> None:
    names.gate.clear()
    asking = names.begin()
    await until(lambda: names.asked)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert names.resolver._asking_back == 1
    names.answer = ZeroDivisionError()  # nobody is there to meet it
    names.gate.set()
    await until(lambda: not names.resolver._asking_back)


async def test_too_many_questions_are_refused_and_those_under_way_go_on(
    names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolve, "QUESTIONS_MAX", 2)
    names.gate.clear()
    asking = [names.begin() for _ in range(2)]
    await until(lambda: len(names.asked) == 2)
    with pytest.raises(OutOfResources):
        await names.resolver.resolve_address(ADDRESS)
    names.gate.set()
    for question in asking:
        assert await question == ("one.test", "other.test")
    assert await names.resolver.resolve_address(ADDRESS)


def test_the_system_is_asked_and_every_name_comes_once(monkeypatch: pytest.MonkeyPatch) -> None:
    many = [f"{number}.test" for number in range(2000)]
    answer = ("one.test", ["other.test", "one.test", *many], ["192.0.2.1"])
    monkeypatch.setattr(socket, "gethostbyaddr", lambda _: answer)
    found = system_lookup_back("192.0.2.1")
    assert found[:4] == ("one.test", "other.test", "0.test", "1.test")
    assert len(found) == ADDRESSES_MAX


@pytest.mark.parametrize(
    ("raised", "kind", "side"),
    [
        (socket.herror(1, "unknown host"), NameNotFound, Side.EXTERNAL),
        (OSError(24, "too many open files"), LinkError, Side.OURS),
        (UnicodeError("not a name"), LinkError, Side.OURS),
    ],
)
def test_the_systems_failures_become_ours(
    monkeypatch: pytest.MonkeyPatch, raised: Exception, kind: type[DoorwardError], side: Side
) -> None:
    def fail(_: str) -> None:
        raise raised

    monkeypatch.setattr(socket, "gethostbyaddr", fail)
    with pytest.raises(kind) as caught:
        system_lookup_back("192.0.2.1")
    assert type(caught.value) is kind
    assert caught.value.side is side
