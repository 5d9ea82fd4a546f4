"""A firewall that can be joined, in the test's own loop, and launchers that the test plays."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from tests.entry.peers import PATIENCE_S
from tests.entry.world import World, world

from doorward.capture.launch import Launch
from doorward.capture.sockets import Place
from doorward.service.join_messages import VERSION, Joined, Wanted, encode, join_path
from doorward.service.joined import JoinServer


class Launcher:
    """One connection to the firewall."""

    def __init__(self, here: World) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self.sock.connect(str(join_path(here.firewall.configuration.control_path)))
        except OSError:
            self.sock.close()
            raise
        self.sock.setblocking(False)

    def give(self, message: msgspec.Struct | bytes, descriptors: Sequence[int] = ()) -> None:
        data = message if isinstance(message, bytes) else encode(message)
        socket.send_fds(self.sock, [data], list(descriptors))

    async def packet(self) -> bytes:
        """The next one; b"" at the end."""
        async with asyncio.timeout(PATIENCE_S):
            try:
                return await asyncio.get_running_loop().sock_recv(self.sock, 65_536)
            except ConnectionError:
                return b""

    async def answer(self) -> Joined:
        return msgspec.json.decode(await self.packet(), type=Joined)

    def close(self) -> None:
        self.sock.close()


def wanted(places: Sequence[Place], **more: Any) -> Wanted:
    fields = {
        "version": VERSION,
        "places": list(map(str, places)),
        "program": "/bin/git",
        "file": "/usr/bin/git",
        "process": 4711,
        "log_command": False,
        "words": ["git", "fetch"],
    }
    return Wanted(**{**fields, **more})


async def join(here: World, launch: Launch, **more: Any) -> Launcher:
    """A program of this namespace joins; nothing that catches is left with the test."""
    made = launch.sockets()
    launcher = Launcher(here)
    launcher.give(
        wanted(list(made), **more), [*(sock.fileno() for sock in made.values()), launch.channel.fileno()]
    )
    for sock in made.values():
        sock.close()
    answer = await launcher.answer()
    assert answer.ok, answer.why
    return launcher


@asynccontextmanager
async def joinable(text: str) -> AsyncIterator[tuple[World, JoinServer]]:
    """At its end nothing is left, as the world's own check says."""
    async with world(text) as here:
        joins = JoinServer(here.firewall, here.firewall._log)
        joins.start()
        try:
            yield here, joins
        finally:
            await joins.close()
            assert not len(joins)
            assert not join_path(here.firewall.configuration.control_path).exists()
