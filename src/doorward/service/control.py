"""The operator's socket: one JSON line in, one JSON line out. Only the owner of the file can open it (mode 0600).

{"command": "reload"}  →  {"ok": true, "message": "…", "problems": []}
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from doorward.service.status import Status

LINE_BYTES_MAX: Final = 65_536
ANSWER_BYTES_MAX: Final = 16 * 2**20
TIMEOUT_S: Final = 5.0
# A reload may have to read a large policy and resolve what filters ask for.
ANSWER_TIMEOUT_S: Final = 60.0


class Answer(msgspec.Struct):
    """What the firewall says to a command. `problems` are lines for the operator; `status` is for who asked for it."""

    ok: bool
    message: str
    problems: list[str] = []
    status: Status | None = None


Command = Callable[[], Awaitable[Answer]]


class ControlUnavailable(Exception):
    """No firewall answers on the socket. The message says which and what to do."""


class ControlServer:
    """Serves commands by name."""

    def __init__(self, path: Path, commands: Mapping[str, Command]) -> None:
        self._path = path
        self._commands = commands
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Bind the socket. Raises ControlUnavailable if another firewall has it, or if it cannot be made."""
        try:
            await self._start()
        except OSError as error:
            raise ControlUnavailable(
                f"cannot make the control socket {self._path}: {error.strerror}"
            ) from error

    async def _start(self) -> None:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self._path.is_socket():
            if _answers(self._path):
                raise ControlUnavailable(f"another doorward is running: it answers on {self._path}")
            self._path.unlink()
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            sock.bind(str(self._path))
            self._path.chmod(0o600)
            self._server = await asyncio.start_unix_server(self._serve, sock=sock, limit=LINE_BYTES_MAX)
        except BaseException:
            sock.close()
            raise

    async def close(self) -> None:
        """Stop, and remove the socket's file. Idempotent."""
        if self._server is not None:
            self._server.close()
            self._server = None
            try:
                self._path.unlink(missing_ok=True)
            except OSError:
                pass  # whoever comes next finds that nobody answers, and what else is to be stopped must not wait

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                line = await reader.readline()
            answer = await self._answer(line)
            async with asyncio.timeout(TIMEOUT_S):
                writer.write(msgspec.json.encode(answer) + b"\n")
                await writer.drain()
        except (TimeoutError, OSError, ValueError):
            pass  # an operator who went away needs no answer
        finally:
            writer.close()

    async def _answer(self, line: bytes) -> Answer:
        try:
            name = json.loads(line)["command"]
        except (ValueError, KeyError, TypeError, RecursionError):
            return Answer(False, "not a command")
        command = self._commands.get(name) if isinstance(name, str) else None
        return await command() if command is not None else Answer(False, "unknown command")


def ask(path: Path, command: str) -> Answer:
    """Ask a running firewall; blocks. Raises ControlUnavailable."""
    try:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(ANSWER_TIMEOUT_S)
            sock.connect(str(path))
            sock.sendall(json.dumps({"command": command}).encode() + b"\n")
            return msgspec.json.decode(_read_line(sock), type=Answer)
    except (FileNotFoundError, ConnectionRefusedError):
        raise ControlUnavailable(f"no doorward is running: nothing answers on {path}") from None
    except PermissionError:
        raise ControlUnavailable(f"only root and the firewall's own user may ask it, at {path}") from None
    except (OSError, ValueError) as error:
        raise ControlUnavailable(f"{path}: {error}") from None


def _read_line(sock: socket.socket) -> bytes:
    data = b""
    while not data.endswith(b"\n") and len(data) < ANSWER_BYTES_MAX:
        piece = sock.recv(65_536)
        if not piece:
            break
        data += piece
    return data


def _answers(path: Path) -> bool:
    try:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(TIMEOUT_S)
            sock.connect(str(path))
    except OSError:
        return False
    return True
