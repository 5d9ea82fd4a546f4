"""A supervisor in the test's own loop, with real workers."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.entry.peers import Peer, socks5_request
from tests.entry.world import HEAD, RULE, short_home
from tests.record.samples import a_record

from doorward.config.loading import load
from doorward.record.desk import RecordDesk
from doorward.record.packets import packed, packed_rows
from doorward.record.query import Query
from doorward.record.reader import read
from doorward.service import supervisor as module
from doorward.service.firewall import StartRefused
from doorward.service.operational_log import make_logger
from doorward.service.supervisor import WorkerSupervisor

pytestmark = [pytest.mark.anyio, pytest.mark.xdist_group("workers"), pytest.mark.timeout(40)]

PATIENCE_S = 20.0
POLICY = HEAD.replace("[control]", "workers = 2\n[control]") + "[limits]\nconnections_max = 100\n" + RULE
DENY = POLICY.replace('"allow"', '"deny"')


class World:
    """A running supervisor, and what it has told."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.path = home / "doorward.toml"
        self.path.write_text(POLICY)
        self._told = io.StringIO()
        self.supervisor = WorkerSupervisor(load(self.path), make_logger(self._told), log_level="error")

    def events(self, event: str) -> list[dict[str, Any]]:
        return [
            told for told in map(json.loads, self._told.getvalue().splitlines()) if told["event"] == event
        ]

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not condition():  # noqa: ASYNC110 - other processes do not set our events
                await asyncio.sleep(0.01)

    async def pids(self) -> list[int]:
        return [worker.pid for worker in (await self.supervisor.status()).workers]

    async def answers(self) -> set[int]:
        """What clients from many addresses are told: nobody listens there (5), or not allowed (2)."""
        host, _, port = (await self.supervisor.status()).listening[0].rpartition(":")
        found = set()
        for number in range(1, 13):
            sock = socket.socket()
            sock.bind((f"127.0.0.{number}", 0))
            sock.setblocking(False)
            async with asyncio.timeout(PATIENCE_S):
                await asyncio.get_running_loop().sock_connect(sock, (host, int(port)))
            client = Peer(sock)
            await client.send(b"\x05\x01\x00" + socks5_request("127.0.0.1", 9))
            assert await client.receive(2) == b"\x05\x00"
            found.add((await client.receive(10))[1])
            client.close()
        return found


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@asynccontextmanager
async def supervising() -> AsyncIterator[World]:
    """Two workers that serve; ended afterwards, with nothing left."""
    before = descriptors()
    with short_home() as home:
        here = World(home)
        await here.supervisor.start()
        try:
            yield here
        finally:
            await here.supervisor.stop()
            await here.supervisor.stop()
        assert not (home / "control").exists()
    assert children() == []
    assert descriptors() <= before + 1  # the loop keeps what wakes it for other threads


def children() -> list[str]:
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()


async def test_it_starts_counts_reloads_and_ends_them_together() -> None:
    async with supervising() as here:
        assert await here.answers() == {5}
        status = await here.supervisor.status()
        assert [worker.state for worker in status.workers] == ["serving", "serving"]
        assert sum(worker.begun for worker in status.workers) == 12
        assert all(worker.begun for worker in status.workers)
        here.path.write_text(DENY)
        assert (await here.supervisor.reload()).ok
        assert await here.answers() == {2}
        assert here.events("reloaded")
        await here.supervisor.drain(1)
        assert sum(1 for _ in read(here.home / "log.db", Query(), newest_first=False)) == 24
    assert here.events("a worker ended") == []


async def test_a_reload_is_refused_when_a_worker_does_not_answer_and_that_one_is_replaced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with supervising() as here:
        stopped, other = await here.pids()
        os.kill(stopped, signal.SIGSTOP)
        monkeypatch.setattr(module, "PREPARE_TIMEOUT_S", 0.5)
        monkeypatch.setattr(module, "COMMIT_TIMEOUT_S", 0.2)
        monkeypatch.setattr(module, "STATUS_TIMEOUT_S", 0.2)
        here.path.write_text(DENY)
        answer = await here.supervisor.reload()
        assert not answer.ok
        assert "worker 1 has not answered" in answer.message
        monkeypatch.undo()
        await here.until(lambda: bool(here.events("a worker was started again")))
        assert (await here.pids())[1] == other
        assert await here.answers() == {5}
        assert (await here.supervisor.reload()).ok
        assert await here.answers() == {2}


async def test_a_worker_that_is_silent_is_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STATUS_TIMEOUT_S", 0.2)
    async with supervising() as here:
        stopped, _ = await here.pids()
        os.kill(stopped, signal.SIGSTOP)
        status = await here.supervisor.status()
        assert [worker.state for worker in status.workers] == ["silent", "serving"]
        os.kill(stopped, signal.SIGCONT)


async def test_a_worker_that_does_not_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STOP_TIMEOUT_S", 0.5)
    async with supervising() as here:
        stopped, _ = await here.pids()
        os.kill(stopped, signal.SIGSTOP)
    assert [told["pid"] for told in here.events("a worker does not end, and is killed")] == [stopped]


async def test_a_worker_that_lies_about_its_records_is_killed_and_replaced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ends: list[socket.socket] = []
    admit = RecordDesk.admit

    def spy(self: RecordDesk, sock: socket.socket, *arguments: Any) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ends.append(theirs)
        admit(self, ours, *arguments)
        ends.append(sock)

    async with supervising() as here:
        monkeypatch.setattr(RecordDesk, "admit", spy)
        first, _ = await here.pids()
        os.kill(first, signal.SIGKILL)  # its successor has the test beside it
        # It cannot begin without a desk that answers, and is killed for what is said in its name.
        await here.until(lambda: len(ends) >= 2)
        monkeypatch.undo()
        ends[0].send(packed(1, 1, packed_rows([a_record(1)])[0]))
        await here.until(lambda: bool(here.events("a worker is killed")))
        assert "not its own" in here.events("a worker is killed")[0]["why"]
        await here.until(lambda: bool(here.events("a worker was started again")))
        assert await here.answers() == {5}
        for sock in ends:
            sock.close()


async def test_a_policy_that_has_changed_since_it_was_read_is_read_again() -> None:
    with short_home() as home:
        here = World(home)
        here.path.write_text(DENY)
        await here.supervisor.start()
        try:
            assert await here.answers() == {2}
            assert here.supervisor.configuration.policy.rules[0].action.value == "deny"
        finally:
            await here.supervisor.stop()
        again = World(home)
        again.path.write_text("nonsense")
        with pytest.raises(StartRefused, match="has changed meanwhile"):
            await again.supervisor.start()


async def test_what_keeps_it_from_starting_leaves_nothing() -> None:
    before = descriptors()
    with short_home() as home, socket.create_server(("127.0.0.1", 0)) as taken:
        (home / "doorward.toml").write_text(POLICY.replace(":0", f":{taken.getsockname()[1]}"))
        supervisor = WorkerSupervisor(load(home / "doorward.toml"), make_logger(io.StringIO()))
        with pytest.raises(StartRefused, match="cannot listen"):
            await supervisor.start()
        assert not (home / "control").exists()
    assert children() == []
    assert descriptors() <= before + 1


async def test_nothing_is_reloaded_any_more_when_it_ends() -> None:
    async with supervising() as here:
        await here.supervisor.drain(1)
        answer = await here.supervisor.reload()
        assert not answer.ok
        assert "is ending" in answer.message
        assert [worker.state for worker in (await here.supervisor.status()).workers] == ["down", "down"]
