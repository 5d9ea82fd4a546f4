"""The launcher's side of joining: hand over what catches, run the program, hear at its end what was refused."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from doorward.service.control import ControlUnavailable, ask
from doorward.service.join_messages import (
    DESCRIPTORS_MAX,
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
from doorward.service.run_refusals import Ran, RefusalCounts, Refused
from doorward.service.run_signals import exit_status

if TYPE_CHECKING:
    from doorward.capture.launch import Launch
    from doorward.service.run_signals import Signals

ANSWER_TIMEOUT_S: Final = 10.0


class JoinRefused(Exception):
    """There is no firewall that takes this program. The text says why, and what can be done."""


def join(
    control: Path, launch: Launch, words: Sequence[str], *, log_command: bool
) -> tuple[socket.socket, float]:
    """Hand the held program over to the firewall with this control socket: the connection to it, and how long the
    program's last bytes may take. This process keeps nothing that catches. Blocks. Raises JoinRefused, CannotCapture.
    """
    assert launch.program is not None
    found = launch.executable
    made = launch.sockets()
    try:
        places = list(made)[: DESCRIPTORS_MAX - 1]  # nobody has as many nameservers on loopback
        wanted = Wanted(
            version=VERSION,
            places=list(map(str, places)),
            program="" if found is None else _bytes_of(found.program),
            file="" if found is None else _bytes_of(found.file),
            process=launch.program.process,
            log_command=log_command,
            words=list(map(_bytes_of, words)),
        )
        descriptors = [*(made[place].fileno() for place in places), launch.channel.fileno()]
        return _offered(control, wanted, descriptors)
    finally:
        for sock in made.values():
            sock.close()


async def run_joined(
    sock: socket.socket, settle_s: float, launch: Launch, signals: Signals, lost: Callable[[], None]
) -> Ran:
    """Run the program that has joined, until it ends. `lost` is called if the firewall ends before. Raises
    ProgramNotRun; it has not run then.
    """
    assert launch.program is not None
    loop = asyncio.get_running_loop()
    launch.program.release()
    ended: asyncio.Future[int] = loop.create_future()
    signals.follow(launch.program.process, ended.set_result)
    sock.setblocking(False)

    def gone() -> None:  # it says nothing while a program runs
        loop.remove_reader(sock.fileno())
        lost()

    loop.add_reader(sock.fileno(), gone)
    status = exit_status(await ended)
    if not loop.remove_reader(sock.fileno()):
        return Ran(status, None)
    refusals = _told(sock, Ended(launch.has_others()), settle_s + ANSWER_TIMEOUT_S)
    if refusals is None:
        lost()
    return Ran(status, refusals)


def _offered(control: Path, wanted: Wanted, descriptors: Sequence[int]) -> tuple[socket.socket, float]:
    """See `join`."""
    path = join_path(control)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        sock.settimeout(ANSWER_TIMEOUT_S)
        data = encode(wanted)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * len(data))
        sock.connect(str(path))
        try:
            socket.send_fds(sock, [data], list(descriptors))
        except BrokenPipeError:
            pass  # it has said no before it was asked
        answer = _answer(sock)
    except (FileNotFoundError, ConnectionRefusedError):
        sock.close()
        raise JoinRefused(_why_nobody(control)) from None
    except (OSError, BadPacket, ValueError) as error:
        sock.close()
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise JoinRefused(f"it cannot join at {path}: {why}") from None
    if not answer.ok:
        sock.close()
        raise JoinRefused(f"the firewall at {control} does not take it: {answer.why}")
    return sock, answer.settle_s


def _answer(sock: socket.socket) -> Joined:
    """Raises OSError, BadPacket, ValueError."""
    try:
        data, descriptors = receive(sock)
    except ConnectionResetError:  # it has not read what we said; what it said before is there all the same
        data, descriptors = receive(sock)
    close_all(descriptors)
    if not data:
        raise BadPacket("the firewall has ended")
    return msgspec.json.decode(data, type=Joined)


def _why_nobody(control: Path) -> str:
    try:
        ask(control, "status")
    except ControlUnavailable:
        return f"no doorward is running that could be joined: nothing answers on {control}"
    return f"the firewall at {control} takes no programs now; its operational log says why"


def _told(sock: socket.socket, ended: Ended, timeout_s: float) -> RefusalCounts | None:
    """What was refused; None if the firewall ends meanwhile, or takes too long."""
    found, deadline = RefusalCounts(), time.monotonic() + timeout_s
    try:
        sock.settimeout(ANSWER_TIMEOUT_S)
        sock.send(encode(ended))
        while True:
            sock.settimeout(max(0.01, deadline - time.monotonic()))
            data, descriptors = receive(sock)
            close_all(descriptors)
            fields = msgspec.json.decode(data)
            if "more" in fields:
                found.more = msgspec.convert(fields, Done).more
                return found
            told = msgspec.convert(fields, Told)
            found.counts[Refused(*(getattr(told, name) for name in Refused._fields))] = told.count
    except (OSError, BadPacket, ValueError, TypeError):
        return None
    finally:
        sock.close()


def _bytes_of(name: str) -> str:
    """A name of this system's, each of its bytes one character."""
    return os.fsencode(name).decode("latin-1")
