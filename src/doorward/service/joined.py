"""Programs that were launched elsewhere and join this firewall: served with its policy, its filters and its log.

    connect ─▶ who is it? ─▶ sockets ─▶ checked ─▶ served … ─▶ the program has ended ─▶ settle ─▶ what was refused
                                                         └─▶ the launcher is gone: all of it ends at once

Each program has a session that nobody else is in, as it would have with a firewall of its own.
"""

from __future__ import annotations

import asyncio
import os
import socket
from typing import TYPE_CHECKING, Any, Final

import msgspec

from doorward.api.errors import DoorwardError
from doorward.api.sessions import Launched
from doorward.engine.supervision import Supervisor
from doorward.entry.captured import CapturedEntry
from doorward.entry.captured_program import LaunchedProgram
from doorward.net.seam import OUT_OF_RESOURCES
from doorward.service.descriptors import raise_limit
from doorward.service.join_check import Given, checked_peer, taken
from doorward.service.join_messages import (
    VERSION,
    BadPacket,
    Done,
    Ended,
    Joined,
    Told,
    Wanted,
    close_all,
    encode,
    join_path,
    receive,
)
from doorward.service.run_program import command_line, name_of_user, settle
from doorward.service.run_refusals import RefusalCounts

if TYPE_CHECKING:
    from doorward.engine.connection import Connection
    from doorward.engine.engine import Recorder
    from doorward.record.model import Record
    from doorward.service.firewall import Firewall

# Programs at once; fewer where descriptors are few.
JOINED_MAX: Final = 32
# Of the descriptors that this process may have, so many for each program that may join.
DESCRIPTORS_EACH: Final = 512
HELLO_TIMEOUT_S: Final = 5.0
TELL_TIMEOUT_S: Final = 5.0
END_TIMEOUT_S: Final = 5.0
BACKLOG: Final = 64
PAUSE_S: Final = 0.1
# Looking through the connections of everybody for those of one program, while it settles.
LOOK_S: Final = 0.1


class JoinServer:
    """See the module. One for a process; `start` after the control socket is had, which nobody else has then."""

    def __init__(self, firewall: Firewall, log: Any) -> None:
        self._firewall = firewall
        self._log = log
        self._path = join_path(firewall.configuration.control_path)
        self._most = max(1, min(JOINED_MAX, raise_limit() // DESCRIPTORS_EACH))
        self._tasks = Supervisor(lambda name, error: log.error("a task failed", task=name, error=error))
        self._watching = Watching(firewall.engine.recorder)
        self._socket: socket.socket | None = None
        self._pause: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        """Who has joined, or is about to."""
        return len(self._tasks)

    def start(self) -> None:
        """Let programs come. Without the socket there is a warning, and none can: that is no reason not to serve."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        try:
            if self._path.is_socket():
                self._path.unlink()
            sock.bind(str(self._path))
            self._path.chmod(0o600)
            sock.listen(BACKLOG)
        except OSError as error:
            sock.close()
            self._log.warning("programs cannot join", socket=str(self._path), why=str(error))
            return
        self._socket = sock
        self._listen()

    def drain(self) -> None:
        """Nobody joins any more, and whoever has begins nothing new. Idempotent."""
        self._stop_listening()
        for program in self._watching.programs:
            program.entry.stop_listening()

    async def close(self) -> None:
        """End what programs have under way. Their launchers learn of it. Idempotent."""
        self._stop_listening()
        await self._tasks.close(END_TIMEOUT_S)

    def _listen(self) -> None:
        self._pause = None
        if self._socket is not None:
            asyncio.get_running_loop().add_reader(self._socket.fileno(), self._accept)

    def _stop_listening(self) -> None:
        if self._pause is not None:
            self._pause.cancel()
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None
            try:
                self._path.unlink(missing_ok=True)
            except OSError:
                pass  # whoever comes finds that nobody answers

    def _accept(self) -> None:
        """One of those who wait; the loop calls again for the next."""
        assert self._socket is not None
        try:
            sock, _ = self._socket.accept()
        except OSError as error:
            if error.errno in OUT_OF_RESOURCES:  # the loop would tell of them again and again
                loop = asyncio.get_running_loop()
                loop.remove_reader(self._socket.fileno())
                self._pause = loop.call_later(PAUSE_S, self._listen)
            return
        sock.setblocking(False)
        if len(self._tasks) >= self._most:
            _answer(sock, Joined(False, f"{self._most} programs have joined already"))
            sock.close()
            return
        self._tasks.spawn(self._serve(sock), name="joined program")

    async def _serve(self, sock: socket.socket) -> None:
        """One launcher, from its first word to its end."""
        program: _Program | None = None
        try:
            async with asyncio.timeout(HELLO_TIMEOUT_S):
                program = await self._welcome(sock)
            limits = self._firewall.configuration.limits
            self._watching.add(program, self._firewall)
            _answer(sock, Joined(True, settle_s=limits.drain_timeout_s))
            who = program.who
            self._log.info("a program has joined", program=who.program, user=who.user, pid=who.process_id)
            ended = await _end_of(sock)
            if ended is not None:
                await program.end(self._firewall, ended, lambda: _is_gone(sock))
                program.close()
                async with asyncio.timeout(TELL_TIMEOUT_S):
                    await _tell(sock, program.refusals)
            self._log.info(
                "a program has left", program=who.program, pid=who.process_id, killed=ended is None
            )
        except BadPacket as error:
            self._log.warning("a program may not join", why=str(error))
            _answer(sock, Joined(False, str(error)))
        except (TimeoutError, OSError):
            pass  # it went away, or does not listen
        finally:
            if program is not None:
                program.close()
                self._watching.remove(program, self._firewall)
            sock.close()

    async def _welcome(self, sock: socket.socket) -> _Program:
        """The program, served from here on. Raises BadPacket with the reason why not, OSError."""
        number = checked_peer(sock)
        user = await asyncio.get_running_loop().run_in_executor(
            None, name_of_user, number
        )  # it may ask a network
        data, descriptors = await _packet(sock)
        try:
            wanted = msgspec.json.decode(data, type=Wanted)
            if wanted.version != VERSION:
                raise BadPacket("it is of another version of doorward")
            if not wanted.is_sound():
                raise BadPacket("it says too much")
            who = Launched(
                _raw(wanted.program),
                _raw(wanted.file),
                user,
                wanted.process,
                tuple(map(_raw, wanted.words)),
            )
        except (ValueError, BadPacket) as error:  # msgspec's own errors are ValueErrors
            close_all(descriptors)
            raise error if isinstance(error, BadPacket) else BadPacket(f"not understood: {error}") from None
        given = taken(wanted, descriptors)
        shown = command_line(who.command) if wanted.log_command else who.program
        return _Program(self._firewall, given, LaunchedProgram(who, shown, has_neighbours=True))


class _Program:
    """One that has joined."""

    def __init__(self, firewall: Firewall, given: Given, launched: LaunchedProgram) -> None:
        """Served from here on. Raises BadPacket; nothing is left then."""
        self.who = launched.launched
        self.refusals = RefusalCounts()
        self._channel = given.channel
        has_room = firewall.front_door.has_room_inside
        entry: CapturedEntry | None = None
        try:
            entry = self.entry = CapturedEntry(firewall.engine, given, given.channel, has_room, launched)
            entry.start()
        except DoorwardError as error:
            if entry is not None:
                entry.close()
            given.close()
            raise BadPacket(f"its traffic cannot be served: {error.detail}") from error

    async def end(self, firewall: Firewall, ended: Ended, given_up: Any) -> None:
        """The program has ended: what it left under way goes to its end, within the usual time."""
        connections, entry = firewall.engine.connections, self.entry

        def mine() -> list[Connection]:
            return [c for c in connections.values() if c.session.id == entry.session_id]

        entry.stop_listening()
        await settle(firewall, entry, mine, lambda: ended.others, given_up=given_up, look_s=LOOK_S)

    def close(self) -> None:
        """End everything of it. Idempotent."""
        self.entry.close()
        self._channel.close()


class Watching:
    """A recorder in the engine's place while programs have joined: counts what each of them was refused."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self.programs: list[_Program] = []

    def refuses(self) -> str | None:
        """See `Recorder`."""
        return self._recorder.refuses()

    def append(self, record: Record) -> None:
        """See `Recorder`."""
        if record.action != "allow":
            for program in self.programs:
                if program.entry.session_id == record.session:
                    program.refusals.count(record)
        self._recorder.append(record)

    def add(self, program: _Program, firewall: Firewall) -> None:
        """From now on for this one, too."""
        if not self.programs:
            self._recorder, firewall.engine.recorder = firewall.engine.recorder, self
        self.programs.append(program)

    def remove(self, program: _Program, firewall: Firewall) -> None:
        """No longer for this one; the last leaves the engine its own recorder."""
        if program in self.programs:
            self.programs.remove(program)
            if not self.programs:
                firewall.engine.recorder = self._recorder


async def _end_of(sock: socket.socket) -> Ended | None:
    """The program's end, whenever that comes; None if the launcher has gone, or says what nobody says."""
    data, descriptors = await _packet(sock)
    close_all(descriptors)
    try:
        return msgspec.json.decode(data, type=Ended)
    except ValueError:
        return None


async def _tell(sock: socket.socket, refusals: RefusalCounts) -> None:
    """Everything that was refused. Raises OSError."""
    loop = asyncio.get_running_loop()
    for refused, count in refusals.counts.items():
        told = Told(**{name: _sayable(value) for name, value in refused._asdict().items()}, count=count)
        await loop.sock_sendall(sock, encode(told))
    await loop.sock_sendall(sock, encode(Done(refusals.more)))


async def _packet(sock: socket.socket) -> tuple[bytes, list[int]]:
    """The next one. Raises OSError, BadPacket."""
    loop = asyncio.get_running_loop()
    while True:
        try:
            return receive(sock)
        except (BlockingIOError, InterruptedError):
            pass
        readable: asyncio.Future[None] = loop.create_future()
        loop.add_reader(sock.fileno(), _set, readable)
        try:
            await readable
        finally:
            loop.remove_reader(sock.fileno())


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _answer(sock: socket.socket, answer: Joined) -> None:
    """If there is room for it: nobody who has said so little has filled it."""
    try:
        sock.send(encode(answer))
    except (OSError, BadPacket):
        pass


def _is_gone(sock: socket.socket) -> bool:
    try:
        return not sock.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    except OSError:
        return True


def _raw(text: str) -> str:
    """A name as this system has it: on its way each byte is one character. Raises ValueError."""
    return os.fsdecode(text.encode("latin-1"))


def _sayable(value: Any) -> Any:
    """Text that came from the network may be none that JSON has."""
    return value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value
