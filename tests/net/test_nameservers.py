"""A question reaches the machine's name servers, and nobody else can answer it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import dns.flags
import pytest
from tests.engine.names.messages import ask
from tests.engine.names.server import Authority, answer_to
from tests.engine.rig import wait_for

from doorward.api.errors import ConnectionRefused, LinkError, OutOfResources, TimedOut, Unreachable
from doorward.net import nameservers
from doorward.net.nameservers import Nameservers, Question, ResolvConf, answers

pytestmark = pytest.mark.anyio

QUERY = ask("example.org", "TXT")
QUESTION = Question(QUERY, len(QUERY))
GOOD = answer_to(QUERY, 'example.org. 30 IN TXT "good"')
CUT = answer_to(QUERY, flags=dns.flags.TC)
FAILED = GOOD[:3] + b"\x82" + GOOD[4:]


async def until(authority: Authority, count: int) -> None:
    await wait_for(lambda: len(authority.asked) >= count, f"{count} questions")


@pytest.fixture
async def authorities(anyio_backend: str) -> AsyncIterator[list[Authority]]:
    before = set(os.listdir("/proc/self/fd"))  # noqa: PTH208 - names are enough
    made: list[Authority] = []
    yield made
    for authority in made:
        await authority.close()
    assert set(os.listdir("/proc/self/fd")) <= before, "descriptors are left"  # noqa: PTH208


async def test_an_answer_comes_back_under_the_askers_identifier(authorities: list[Authority]) -> None:
    authorities.append(Authority(GOOD, GOOD))
    asking = Nameservers(authorities[0].servers)
    assert await asking.ask(QUESTION, 5.0) == GOOD
    assert await asking.ask(QUESTION, 5.0) == GOOD
    first, second = authorities[0].asked
    assert first[2:] == QUERY[2:] == second[2:]
    assert len({first[:2], second[:2], QUERY[:2]}) == 3, "an identifier of its own for each"
    assert len(set(authorities[0].peers)) == 2, "and a port"


def test_only_what_fits_the_question_is_an_answer() -> None:
    assert answers(GOOD, QUESTION)
    assert answers(GOOD.replace(b"example", b"EXAMPLE"), QUESTION)
    for other in (
        b"",
        GOOD[:12],
        GOOD[: QUESTION.size - 1],
        b"\0\0" + GOOD[2:],
        QUERY,
        GOOD[:2] + b"\xa8" + GOOD[3:],
        GOOD[:4] + b"\0\2" + GOOD[6:],
        GOOD.replace(b"example", b"exanple"),
        answer_to(ask("example.org", "MX")),
    ):
        assert not answers(other, QUESTION)


async def test_strays_are_passed_over_and_not_for_ever(authorities: list[Authority]) -> None:
    authorities.append(Authority())
    asking = asyncio.ensure_future(Nameservers(authorities[0].servers).ask(QUESTION, 20.0))  # noqa: TID251
    await until(authorities[0], 1)
    stray = b"\0\0" if authorities[0].asked[0][:2] != b"\0\0" else b"\0\1"
    for data in (*[stray + GOOD[2:]] * (nameservers.STRAYS_MAX - 1), authorities[0].asked[0][:2] + GOOD[2:]):
        authorities[0].datagrams.sendto(data, authorities[0].peers[0])
    assert await asking == GOOD
    asking = asyncio.ensure_future(Nameservers(authorities[0].servers).ask(QUESTION, 20.0))  # noqa: TID251
    for round_ in range(2, 2 + nameservers.ROUNDS):
        await until(authorities[0], round_)
        for _ in range(nameservers.STRAYS_MAX):
            authorities[0].datagrams.sendto(b"x" * 40, authorities[0].peers[-1])
    with pytest.raises(LinkError, match="no answer"):
        await asking


async def test_a_server_that_fails_is_not_the_last_word(authorities: list[Authority]) -> None:
    authorities += [Authority(FAILED, FAILED), Authority(GOOD)]
    assert await Nameservers(lambda: [a.name for a in authorities]).ask(QUESTION, 5.0) == GOOD
    only = Authority(FAILED, FAILED)
    authorities.append(only)
    assert await Nameservers(only.servers).ask(QUESTION, 5.0) == FAILED


async def test_a_lost_datagram_is_sent_again(authorities: list[Authority]) -> None:
    authorities.append(Authority(None, GOOD))
    assert await Nameservers(authorities[0].servers).ask(QUESTION, 0.2) == GOOD
    authorities.append(Authority())
    with pytest.raises(TimedOut):
        await Nameservers(authorities[1].servers).ask(QUESTION, 0.1)
    assert len(authorities[1].asked) == nameservers.ROUNDS


async def test_what_was_cut_short_is_fetched_by_stream(authorities: list[Authority]) -> None:
    authorities.append(Authority(CUT, stream=len(GOOD).to_bytes(2) + GOOD))
    assert await Nameservers(authorities[0].servers).ask(QUESTION, 5.0) == GOOD
    assert authorities[0].asked[1][:2] == len(QUERY).to_bytes(2)


@pytest.mark.parametrize(
    "stream",
    [
        None,
        b"\0\1" + GOOD,
        (9000).to_bytes(2) + GOOD,
        len(GOOD).to_bytes(2) + GOOD[:-1],
        len(GOOD).to_bytes(2) + GOOD.replace(b"example", b"exanple"),
    ],
)
async def test_a_stream_that_lies_is_no_answer(authorities: list[Authority], stream: bytes | None) -> None:
    authorities.append(Authority(CUT, CUT, stream=stream))
    with pytest.raises(LinkError):
        await Nameservers(authorities[0].servers).ask(QUESTION, 5.0)


async def test_no_server_and_one_that_is_not_there(authorities: list[Authority]) -> None:
    with pytest.raises(Unreachable):
        await Nameservers(list).ask(QUESTION, 5.0)
    gone = Authority()
    await gone.close()
    with pytest.raises(ConnectionRefused):
        await Nameservers(gone.servers).ask(QUESTION, 5.0)


async def test_only_so_many_are_under_way(
    monkeypatch: pytest.MonkeyPatch, authorities: list[Authority]
) -> None:
    monkeypatch.setattr(nameservers, "QUESTIONS_MAX", 1)
    authorities.append(Authority())
    asking = Nameservers(authorities[0].servers)
    first = asyncio.ensure_future(asking.ask(QUESTION, 5.0))  # noqa: TID251
    await asyncio.sleep(0)
    with pytest.raises(OutOfResources):
        await asking.ask(QUESTION, 5.0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    authorities[0].answers.append(GOOD)
    authorities[0].answers.append(GOOD)
    assert await asking.ask(QUESTION, 5.0) == GOOD


async def test_the_machines_servers_are_read_from_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "resolv.conf"
    conf = ResolvConf(path)
    assert conf.servers() == (), "no file, no servers"
    path.write_bytes(
        b"# nameserver 192.0.2.9\nsearch a.org\nnameserver 192.0.2.1\nnameserver\nnameserver x\n"
        b"nameserver 192.0.2.1\n\xff\0\nnameserver\t2001:db8::1 # here\n"
    )
    assert conf.servers() == (), "not read again at once"
    monkeypatch.setattr(nameservers, "READ_AGAIN_S", 0.0)
    assert conf.servers() == (("192.0.2.1", 53), ("2001:db8::1", 53))
