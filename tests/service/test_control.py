from __future__ import annotations

import asyncio
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.entry.world import short_home

from doorward.service import control
from doorward.service.control import Answer, ControlServer, ControlUnavailable, ask

pytestmark = pytest.mark.anyio


async def reload() -> Answer:
    return Answer(True, "done", ["a hint"])


@asynccontextmanager
async def serving() -> AsyncIterator[Path]:
    with short_home() as home:
        path = home / "var" / "control"
        server = ControlServer(path, {"reload": reload})
        await server.start()
        try:
            yield path
        finally:
            await server.close()
        assert not path.exists()


async def asked(path: Path, command: str) -> Answer:
    return await asyncio.get_running_loop().run_in_executor(None, ask, path, command)


async def said(path: Path, data: bytes) -> bytes:
    """Everything the server answers to these bytes."""
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.setblocking(False)
        await loop.sock_connect(sock, str(path))
        try:
            await loop.sock_sendall(sock, data)
            sock.shutdown(socket.SHUT_WR)
            answer = b""
            async with asyncio.timeout(5):
                while piece := await loop.sock_recv(sock, 65_536):
                    answer += piece
        except (BrokenPipeError, ConnectionResetError):
            return b""
    return answer


async def test_a_command_is_carried_out_and_answered() -> None:
    async with serving() as path:
        answer = await asked(path, "reload")
        assert (answer.ok, answer.message, answer.problems) == (True, "done", ["a hint"])
        assert not (await asked(path, "shutdown")).ok


async def test_only_its_owner_may_use_the_socket() -> None:
    async with serving() as path:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        b"{}\n",
        b"[]\n",
        b'{"command": 7}\n',
        b"\xff\xfe\n",
        b"[" * 50_000 + b"\n",
        b"x" * 70_000 + b"\n",
    ],
)
async def test_what_is_no_command_does_no_harm(data: bytes) -> None:
    async with serving() as path:
        assert b'"ok":true' not in await said(path, data)
        assert (await asked(path, "reload")).ok


async def test_a_connection_that_says_nothing_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "TIMEOUT_S", 0.1)
    async with serving() as path:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(sock, str(path))
            async with asyncio.timeout(5):
                assert await loop.sock_recv(sock, 1) == b""


async def test_a_socket_that_another_one_answers_on_is_left_to_it() -> None:
    async with serving() as path:
        with pytest.raises(ControlUnavailable, match="another doorward is running"):
            await ControlServer(path, {}).start()
        assert (await asked(path, "reload")).ok


async def test_a_socket_that_somebody_left_behind_is_taken_over() -> None:
    with short_home() as home:
        path = home / "control"
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(path))
        server = ControlServer(path, {"reload": reload})
        await server.start()
        assert (await asked(path, "reload")).ok
        await server.close()


async def test_a_file_that_is_no_socket_is_never_removed() -> None:
    with short_home() as home:
        path = home / "control"
        path.write_text("mine")
        with pytest.raises(ControlUnavailable, match="in use"):
            await ControlServer(path, {}).start()
        assert path.read_text() == "mine"


def test_who_may_not_ask_is_told_who_may(monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed(socket.socket):
        def connect(self, _: object) -> None:
            raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("socket.socket", Closed)
    with pytest.raises(ControlUnavailable, match="only root and the firewall's own user"):
        ask(Path("/run/control"), "reload")


@pytest.mark.parametrize("left_behind", [True, False])
def test_where_nobody_answers_that_is_said(left_behind: bool) -> None:
    with short_home() as home:
        path = home / "control"
        if left_behind:
            with socket.socket(socket.AF_UNIX) as left:
                left.bind(str(path))
        with pytest.raises(ControlUnavailable, match="no doorward is running"):
            ask(path, "reload")


@pytest.mark.parametrize("answer", [b"", b"{}\n", b"rubbish\n", b'{"ok": 1}\n'])
async def test_an_answer_that_is_none_is_said_to_be_none(answer: bytes) -> None:
    loop = asyncio.get_running_loop()
    with short_home() as home, socket.socket(socket.AF_UNIX) as listening:
        path = home / "control"
        listening.bind(str(path))
        listening.listen()
        asking = loop.run_in_executor(None, ask, path, "reload")
        listening.setblocking(False)
        sock, _ = await loop.sock_accept(listening)
        with sock:
            await loop.sock_recv(sock, 1000)
            await loop.sock_sendall(sock, answer)
        with pytest.raises(ControlUnavailable):
            await asking


async def test_a_socket_that_cannot_be_made_is_named_with_the_reason() -> None:
    with short_home() as home:
        (home / "var").write_text("a file where a directory is needed")
        server = ControlServer(home / "var" / "control", {})
        with pytest.raises(ControlUnavailable, match=r"/var/control: "):
            await server.start()


async def test_a_socket_file_that_cannot_be_removed_does_not_keep_the_rest_from_stopping() -> None:
    with short_home() as home:
        path = home / "control"
        server = ControlServer(path, {})
        await server.start()
        path.unlink()
        path.mkdir()
        await server.close()
