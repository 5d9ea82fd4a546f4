"""Programs that join a running firewall: served like its own, apart from everybody, and gone without a trace."""

from __future__ import annotations

import asyncio
import errno
import os
import socket

import msgspec
import pytest
from tests.capture.inside import NOBODY, Inside, launched, need_address, needs_namespaces
from tests.entry.captured import policy, received
from tests.entry.peers import Peer
from tests.entry.world import World
from tests.service.joining import Launcher, join, joinable

from doorward.api.contracts import SessionFlags
from doorward.service import joined
from doorward.service.join_messages import Done, Ended, Told

pytestmark = [pytest.mark.anyio, needs_namespaces]


async def connected(inside: Inside, host: str, port: int) -> Peer:
    sock = inside.socket()
    sock.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_connect(sock, (host, port))
    except OSError:
        sock.close()
        raise
    return Peer(sock)


async def refused(inside: Inside) -> None:
    """A connection to nobody ends, however early the program learns of it."""
    try:
        client = await connected(inside, NOBODY[4], 80)
    except ConnectionError:
        return
    assert await client.outcome() == (b"", "reset")
    client.close()


def sessions(here: World) -> list[object]:
    return [s for s in here.firewall.engine.sessions if s.launched is not None]


async def test_it_is_served_in_a_session_of_its_own_and_told_what_was_refused() -> None:
    with launched() as (launch, inside):
        async with joinable(policy()) as (here, joins):
            own_recorder = here.firewall.engine.recorder
            launcher = await join(here, launch)
            server = here.server(need_address())
            client = await connected(inside, server.host, server.port)
            outer = await here.accept(server)
            await client.send(b"to")
            assert await outer.receive(2) == b"to"
            (session,) = sessions(here)
            assert session.launched.file == "/usr/bin/git"  # type: ignore[attr-defined]
            assert not session.flags & SessionFlags.PRIVATE  # type: ignore[attr-defined]
            assert here.firewall.engine.sessions.get("127.0.0.1", None) is not session
            await refused(inside)
            client.close()
            outer.close()
            launcher.give(Ended(others=False))
            told = msgspec.json.decode(await launcher.packet(), type=Told)
            assert (told.action, told.host, told.port, told.count) == ("deny", NOBODY[4], 80, 1)
            assert msgspec.json.decode(await launcher.packet(), type=Done) == Done(0)
            assert await launcher.packet() == b""
            launcher.close()
            await here.until(lambda: not len(joins))
            assert not sessions(here)
            assert here.firewall.engine.recorder is own_recorder
            assert {record.process for record in here.records} == {"/bin/git"}


async def test_when_the_launcher_goes_all_of_it_ends_at_once() -> None:
    with launched() as (launch, inside):
        async with joinable(policy()) as (here, joins):
            launcher = await join(here, launch)
            server = here.server(need_address())
            client = await connected(inside, server.host, server.port)
            outer = await here.accept(server)
            launcher.close()
            await here.until(lambda: not len(joins))
            assert (await client.outcome())[1] == "reset"
            assert (await outer.outcome())[1] == "reset"
            with pytest.raises(ConnectionRefusedError):
                await connected(inside, server.host, server.port)
            assert not sessions(here)
            client.close()


async def test_a_reload_keeps_it_and_judges_it_anew() -> None:
    with launched() as (launch, inside):
        async with joinable(policy()) as (here, _):
            launcher = await join(here, launch)
            server = here.server(need_address())
            client = await connected(inside, server.host, server.port)
            outer = await here.accept(server)
            here.write(policy(ports="tcp/1"))
            assert (await here.firewall.reload()).ok
            await client.send(b"still")
            assert await outer.receive(5) == b"still"
            again = await connected(inside, server.host, server.port)
            assert await again.outcome() == (b"", "reset")
            for peer in (client, outer, again):
                peer.close()
            launcher.close()


async def test_two_programs_know_nothing_of_each_other() -> None:
    with launched() as (first, inside), launched() as (second, _):
        async with joinable(policy()) as (here, joins):
            one, other = await join(here, first), await join(here, second)
            assert len(sessions(here)) == 2
            await refused(inside)
            await here.record()
            other.give(Ended(others=True))
            assert msgspec.json.decode(await other.packet(), type=Done) == Done(0)
            other.close()
            await here.until(lambda: len(joins) == 1)
            await refused(inside)
            await here.record(2)
            one.give(Ended(others=True))
            assert msgspec.json.decode(await one.packet(), type=Told).count == 2
            one.close()


async def test_no_more_than_fit_join(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joined, "JOINED_MAX", 2)
    async with joinable(policy()) as (here, joins):
        waiting = [Launcher(here) for _ in range(2)]
        await here.until(lambda: len(joins) == 2)
        surplus = [Launcher(here) for _ in range(50)]
        for launcher in surplus:
            answer = await launcher.answer()
            assert (answer.ok, answer.why) == (False, "2 programs have joined already")
            assert await launcher.packet() == b""
        assert len(joins) == 2
        for launcher in (*waiting, *surplus):
            launcher.close()
        await here.until(lambda: not len(joins))


async def test_who_says_nothing_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joined, "HELLO_TIMEOUT_S", 0.05)
    async with joinable(policy()) as (here, _):
        launcher = Launcher(here)
        assert await launcher.packet() == b""
        launcher.close()


@pytest.mark.parametrize("said", [b"{", b"[]", b"{}", b"\xff", b'{"version":9}', b"x" * 140_000])
async def test_half_a_message_or_another_is_refused_and_its_descriptors_are_closed(said: bytes) -> None:
    async with joinable(policy()) as (here, _):
        launcher = Launcher(here)
        reading, writing = os.pipe()
        os.set_blocking(reading, False)
        launcher.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 400_000)
        launcher.give(said, [writing] * 3)
        os.close(writing)
        answer = await launcher.answer()
        assert not answer.ok
        assert os.read(reading, 1) == b""  # nobody has the other end
        os.close(reading)
        launcher.close()


async def test_who_does_not_read_what_was_refused_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joined, "TELL_TIMEOUT_S", 0.05)
    with launched() as (launch, inside):
        async with joinable(policy()) as (here, joins):
            launcher = await join(here, launch)
            (program,) = joins._watching.programs
            await refused(inside)
            first = await here.record()
            for port in range(1, 1000):
                program.refusals.count(msgspec.structs.replace(first, port=port, host="x" * 250))
            launcher.give(Ended(others=True))
            await here.until(lambda: not len(joins))
            launcher.close()


async def test_what_a_launcher_says_in_between_ends_its_program() -> None:
    with launched() as (launch, _):
        async with joinable(policy()) as (here, joins):
            launcher = await join(here, launch)
            launcher.give(b"nonsense", [0])
            await here.until(lambda: not len(joins))
            assert await launcher.packet() == b""
            launcher.close()


async def test_a_drain_takes_no_more_and_closing_ends_what_is_there() -> None:
    with launched() as (launch, inside):
        async with joinable(policy()) as (here, joins):
            launcher = await join(here, launch)
            joins.drain()
            with pytest.raises(ConnectionRefusedError):
                await connected(inside, NOBODY[4], 80)
            with pytest.raises(FileNotFoundError):
                Launcher(here)
            await joins.close()
            assert await launcher.packet() == b""
            launcher.close()


async def test_a_socket_that_cannot_be_made_is_a_warning() -> None:
    async with joinable(policy()) as (here, joins):
        await joins.close()
        joins._path = joins._path.with_name("x" * 200)
        joins.start()
        assert here.told()[-1]["event"] == "programs cannot join"


async def test_datagrams_and_their_answers_pass() -> None:
    loop = asyncio.get_running_loop()
    with launched() as (launch, inside), socket.socket(type=socket.SOCK_DGRAM) as server:
        server.bind((need_address(), 0))
        server.setblocking(False)
        async with joinable(policy()) as (here, _):
            launcher = await join(here, launch)
            with inside.socket(kind=socket.SOCK_DGRAM) as client:
                client.setblocking(False)
                client.connect(server.getsockname())
                client.send(b"question")
                async with asyncio.timeout(5):
                    question, peer = await loop.sock_recvfrom(server, 100)
                assert question == b"question"
                server.sendto(b"answer", peer)
                assert await received(client) == b"answer"
            launcher.close()


class Full:
    """A listening socket of a process that has no descriptors left, three times."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.asked = 0

    def fileno(self) -> int:
        return self._sock.fileno()

    def accept(self) -> tuple[socket.socket, object]:
        self.asked += 1
        if self.asked <= 3:
            raise OSError(errno.EMFILE, "full")
        return self._sock.accept()

    def close(self) -> None:
        self._sock.close()


async def test_when_descriptors_have_run_out_it_asks_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joined, "PAUSE_S", 0.01)
    async with joinable(policy()) as (here, joins):
        sock = joins._socket
        assert sock is not None
        full = Full(sock)
        monkeypatch.setattr(joins, "_socket", full)
        launcher = Launcher(here)
        began = asyncio.get_running_loop().time()
        await here.until(lambda: len(joins) == 1)
        assert full.asked == 4
        assert asyncio.get_running_loop().time() - began >= 0.03
        launcher.close()
