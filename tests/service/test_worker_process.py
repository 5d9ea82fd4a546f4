from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from doorward.service import worker_process
from doorward.service.channel import Channel, Reply, Stop, Tell
from doorward.service.worker_process import QUESTIONS_MAX, WorkerFailed, WorkerProcess

pytestmark = pytest.mark.anyio

PATIENCE_S = 15.0


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@asynccontextmanager
async def started() -> AsyncIterator[WorkerProcess]:
    """A real child; dead afterwards, with nothing left open."""
    before = open_files()
    breaches: list[str] = []
    worker = WorkerProcess(0, lambda sock: sock.close(), breaches.append)
    try:
        yield worker
    finally:
        worker.kill()
        await end_of(worker)
        worker.kill()
        assert breaches == []
    assert open_files() == before


async def end_of(worker: WorkerProcess) -> int:
    async with asyncio.timeout(PATIENCE_S):
        return await worker.ended


async def test_a_child_answers_and_ends_when_it_is_told_to() -> None:
    async with started() as worker:
        with pytest.raises(WorkerFailed, match="not ready"):
            await worker.ask(Tell(), PATIENCE_S)
        worker.send(Stop())
        assert await end_of(worker) == 0
        with pytest.raises(WorkerFailed, match="worker 1 has ended"):
            await worker.ask(Tell(), PATIENCE_S)
        with pytest.raises(WorkerFailed):
            worker.send(Tell())


async def test_a_death_is_noticed_and_whoever_waits_is_told() -> None:
    async with started() as worker:
        os.kill(worker.pid, signal.SIGSTOP)
        asked = asyncio.get_running_loop().create_task(worker.ask(Tell(), PATIENCE_S))
        await asyncio.sleep(0)
        os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises(WorkerFailed, match="has ended"):
            await asked
        assert await end_of(worker) == -signal.SIGKILL


async def test_who_does_not_answer_is_waited_for_no_longer_than_said() -> None:
    async with started() as worker:
        os.kill(worker.pid, signal.SIGSTOP)
        with pytest.raises(WorkerFailed, match="worker 1 has not answered"):
            await worker.ask(Tell(), 0.05)
        for _ in range(QUESTIONS_MAX):
            worker.send(Tell())
        with pytest.raises(WorkerFailed, match="does not answer"):
            worker.send(Tell())


async def test_who_cannot_be_started_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    before = open_files()
    monkeypatch.setattr(sys, "executable", "/nowhere")
    with pytest.raises(OSError, match="nowhere"):
        WorkerProcess(0, lambda sock: sock.close(), lambda why: None)
    assert open_files() == before


class Impostor:
    """A worker's end of the channel in the test's hand; the child is a program that waits."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.breaches: list[str] = []
        self.sock: socket.socket | None = None

        def start(control: int, records: int) -> object:
            self.sock = socket.socket(fileno=os.dup(control))
            return subprocess.Popen(["sleep", "60"])

        monkeypatch.setattr(worker_process, "_start", start)
        self.worker = WorkerProcess(1, lambda sock: sock.close(), self.breaches.append)

    async def end(self) -> None:
        self.worker.kill()
        await end_of(self.worker)
        assert self.sock is not None
        self.sock.close()


async def test_who_says_what_is_no_answer_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    impostor = Impostor(monkeypatch)
    assert impostor.sock is not None
    for data in (b"nonsense", b"[" * 5000, b'{"question": "1"}', b'{"question": 77}'):
        socket.send_fds(impostor.sock, [data], [0])
    with pytest.raises(WorkerFailed):
        await impostor.worker.ask(Tell(), 0.1)
    assert len(impostor.breaches) == 3  # an answer to no question is only late
    await impostor.end()


async def test_who_hangs_up_and_lives_on_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_process, "END_TIMEOUT_S", 0.05)
    impostor = Impostor(monkeypatch)
    assert impostor.sock is not None
    impostor.sock.close()
    assert await end_of(impostor.worker) == -signal.SIGKILL
    assert not impostor.worker.reachable


async def test_an_answer_that_comes_too_late_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    impostor = Impostor(monkeypatch)
    assert impostor.sock is not None
    with pytest.raises(WorkerFailed):
        await impostor.worker.ask(Tell(), 0.01)
    other = Channel(impostor.sock.dup(), lambda data, found: None, lambda: None, descriptors=False)
    other.send(Reply(1))
    other.send(Reply(2, problem="a problem"))
    with pytest.raises(WorkerFailed, match="a problem"):
        await impostor.worker.ask(Tell(), PATIENCE_S)
    other.close()
    assert impostor.breaches == []
    await impostor.end()
