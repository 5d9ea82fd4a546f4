"""Names are asked for once, shared, remembered for a moment, and never without a limit."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import pytest
from tests.net.wires import Clock, turns, until

from doorward.api.errors import DoorwardError, LinkError, NameNotFound, OutOfResources, Side, TimedOut
from doorward.net import resolve
from doorward.net.resolve import (
    ADDRESSES_MAX,
    FAILURE_REMEMBERED_S,
    REMEMBERED_S,
    Addresses,
    Resolver,
    system_lookup,
)

pytestmark = pytest.mark.anyio

ANSWER: Addresses = (IPv4Address("192.0.2.1"), IPv6Address("2001:db8::1"))


class Names:
    """A resolver whose lookups are counted, and held up while `gate` is shut."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answer: Addresses | Exception = ANSWER
        self.gate = threading.Event()
        self.gate.set()
        self.resolver = Resolver(5, self._lookup)

    def begin(self, name: str) -> asyncio.Task[Addresses]:
        """Ask without waiting."""
        return asyncio.get_running_loop().create_task(self.resolver.resolve(name))

    def _lookup(self, name: str) -> Addresses:
        self.asked.append(name)
        self.gate.wait(5)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
async def names() -> AsyncIterator[Names]:
    names = Names()
    yield names
    names.gate.set()
    await until(lambda: not names.resolver._asking)
    names.resolver.close()


async def test_an_answer_is_remembered_and_asked_for_anew_later(clock: Clock, names: Names) -> None:
    assert await names.resolver.resolve("example.com") == ANSWER
    clock.advance(REMEMBERED_S - 0.1)
    assert await names.resolver.resolve("example.com") == ANSWER
    assert len(names.asked) == 1
    clock.advance(0.2)
    assert await names.resolver.resolve("example.com") == ANSWER
    assert len(names.asked) == 2


async def test_a_failure_is_remembered_shorter(clock: Clock, names: Names) -> None:
    names.answer = NameNotFound("no such name", side=Side.EXTERNAL)
    for _ in range(3):
        with pytest.raises(NameNotFound, match="no such name") as caught:
            await names.resolver.resolve("example.com")
        assert caught.value.side is Side.EXTERNAL
    assert len(names.asked) == 1
    clock.advance(FAILURE_REMEMBERED_S + 0.1)
    names.answer = ANSWER
    assert await names.resolver.resolve("example.com") == ANSWER


async def test_a_question_under_way_is_shared(names: Names) -> None:
    names.gate.clear()
    tasks = [names.begin("example.com") for _ in range(10)]
    await until(lambda: names.asked)
    names.gate.set()
    assert await asyncio.gather(*tasks) == [ANSWER] * 10
    assert len(names.asked) == 1


async def test_one_who_gives_up_does_not_take_the_answer_from_the_others(names: Names) -> None:
    names.gate.clear()
    first, second = names.begin("example.com"), names.begin("example.com")
    await until(lambda: names.asked)
    first.cancel()
    await turns(3)
    names.gate.set()
    assert await second == ANSWER
    assert first.cancelled()


async def test_an_answer_that_comes_too_late_is_remembered_all_the_same(names: Names) -> None:
    names.gate.clear()
    names.resolver.timeout_s = 0.01
    with pytest.raises(TimedOut) as caught:
        await names.resolver.resolve("example.com")
    assert caught.value.side is Side.EXTERNAL
    names.gate.set()
    await until(lambda: not names.resolver._asking)
    assert await names.resolver.resolve("example.com") == ANSWER
    assert len(names.asked) == 1


async def test_too_many_questions_are_refused_and_those_under_way_go_on(
    names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolve, "QUESTIONS_MAX", 2)
    names.gate.clear()
    tasks = [names.begin("one.example"), names.begin("two.example")]
    await until(lambda: len(names.asked) == 2)
    with pytest.raises(OutOfResources) as caught:
        await names.resolver.resolve("three.example")
    assert caught.value.side is Side.OURS
    names.gate.set()
    assert await asyncio.gather(*tasks) == [ANSWER] * 2
    assert await names.resolver.resolve("three.example") == ANSWER


async def test_no_more_answers_are_remembered_than_the_cap_and_the_oldest_goes_first(
    names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolve, "ANSWERS_MAX", 3)
    for number in range(4):
        await names.resolver.resolve(f"{number}.example")
    names.asked.clear()
    for number in (1, 2, 3):
        await names.resolver.resolve(f"{number}.example")
    assert names.asked == []
    await names.resolver.resolve("0.example")
    assert names.asked == ["0.example"]


@pytest.mark.parametrize("name", ["localhost", "a.localhost"])
async def test_localhost_never_leaves_the_machine(names: Names, name: str) -> None:
    assert await names.resolver.resolve(name) == (IPv4Address("127.0.0.1"), IPv6Address("::1"))
    assert names.asked == []


@pytest.mark.parametrize("name", ["notlocalhost", "localhost.example"])
async def test_a_name_that_only_looks_like_localhost_is_asked_for(names: Names, name: str) -> None:
    assert await names.resolver.resolve(name) == ANSWER


async def test_a_surprise_in_the_lookup_is_raised_and_not_remembered(names: Names) -> None:
    names.answer = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        await names.resolver.resolve("example.com")
    names.answer = ANSWER
    assert await names.resolver.resolve("example.com") == ANSWER


def _found(*addresses: str) -> list[Any]:
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in addresses]


def test_the_system_is_asked_and_every_address_comes_once(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = _found("192.0.2.1", "192.0.2.1", "2001:db8::1", "fe80::1%eth0")
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answer)
    assert system_lookup("example.com") == (*ANSWER, IPv6Address("fe80::1"))


def test_a_name_with_thousands_of_addresses_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = _found(*(f"10.0.{number // 256}.{number % 256}" for number in range(2000)))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answer)
    assert len(system_lookup("example.com")) == ADDRESSES_MAX


@pytest.mark.parametrize(
    ("raised", "kind", "side"),
    [
        (socket.gaierror(socket.EAI_NONAME, "no such name"), NameNotFound, Side.EXTERNAL),
        (socket.gaierror(socket.EAI_FAIL, "refused"), NameNotFound, Side.EXTERNAL),
        (socket.gaierror(socket.EAI_AGAIN, "try again"), LinkError, Side.EXTERNAL),
        (OSError(24, "too many open files"), LinkError, Side.OURS),
        (UnicodeError("label too long"), LinkError, Side.OURS),
    ],
)
def test_the_systems_failures_become_ours(
    monkeypatch: pytest.MonkeyPatch, raised: Exception, kind: type[DoorwardError], side: Side
) -> None:
    def fail(*_: object, **__: object) -> list[Any]:
        raise raised

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(kind) as caught:
        system_lookup("example.com")
    assert type(caught.value) is kind
    assert caught.value.side is side


def test_no_address_at_all_is_no_such_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [])
    with pytest.raises(NameNotFound):
        system_lookup("example.com")
