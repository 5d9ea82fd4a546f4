"""A whole firewall in the test's own loop: policy text in, records and operational log out."""

from __future__ import annotations

import asyncio
import io
import json
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final, TypeVar

from tests.entry.peers import PATIENCE_S, Peer, Server, socks5_request

from doorward.api.errors import NameNotFound, Side
from doorward.config.loading import load
from doorward.config.passwords import hash_password
from doorward.net.resolve import Addresses, Resolver
from doorward.record.model import Record
from doorward.service.firewall import Firewall
from doorward.service.operational_log import make_logger

T = TypeVar("T", Peer, Server)

HEAD: Final = """
[listen]
proxy = ["127.0.0.1:0"]
[control]
path = "control"
[log]
path = "log.db"
"""
# Servers of the tests are on loopback, which only a rule that names it opens.
RULE: Final = """
[[rule]]
name = "everything here"
action = "allow"
to = ["127.0.0.0/8", "::1"]
protocols = ["any"]
"""
ONLY_USERS: Final = """
[[rule]]
name = "users only"
action = "allow"
to = ["127.0.0.0/8", "::1"]
protocols = ["any"]
users = ["kim"]
"""
_HASHES: dict[str, str] = {}


def user(name: str, password: str) -> str:
    """A table of the policy file; the slow hash is made once."""
    hashed = _HASHES.get(password) or _HASHES.setdefault(password, hash_password(password))
    return f'[users.{name}]\npassword = "{hashed}"\n'


def limits(**values: float) -> str:
    return "[limits]\n" + "".join(f"{key} = {value}\n" for key, value in values.items())


class World:
    """A running firewall with everything that a test wants to know about it."""

    def __init__(self, home: Path, firewall: Firewall, told: io.StringIO) -> None:
        self.home = home
        self.firewall = firewall
        self.records: list[Record] = []
        self.errors_expected = False
        self._told = told
        self._changed = asyncio.Event()
        self._ends: list[Peer | Server] = []
        self.first_proxy = self.proxy
        recorder: Any = firewall.engine.recorder
        append = recorder.append

        def keep(record: Record) -> None:
            self.records.append(record)
            self._changed.set()
            append(record)

        recorder.append = keep

    @property
    def policy_path(self) -> Path:
        return self.firewall.configuration.path

    @property
    def proxy(self) -> tuple[str, int]:
        return self.firewall.listeners.addresses[0]

    def write(self, text: str, name: str = "doorward.toml") -> Path:
        """Put a file into the firewall's directory."""
        path = self.home / name
        path.write_text(text)
        return path

    @property
    def guests(self) -> int:
        """Clients that are here and not the relay's, whoever listens to them."""
        return self.firewall.entry.serving + self.firewall.front_door.waiting

    async def client(self, first: bytes = b"") -> Peer:
        """A client of the mixed port that has said this much."""
        peer = self.keep(await Peer.connect(*self.proxy))
        if first:
            await peer.send(first)
        return peer

    async def tunnel(self, server: Server, host: str | None = None) -> tuple[Peer, Peer]:
        """A SOCKS5 tunnel: the client's end, and the server's."""
        client = await self.client(b"\x05\x01\x00" + socks5_request(host or server.host, server.port))
        outer = await self.accept(server)
        assert await client.receive(2) == b"\x05\x00"
        await _skip_socks5_reply(client)
        return client, outer

    def server(self, host: str = "127.0.0.1", **keywords: Any) -> Server:
        return self.keep(Server(host, **keywords))

    async def accept(self, server: Server) -> Peer:
        return self.keep(await server.accept())

    def names(self, **addresses: str) -> None:
        """From now on these names have these addresses, and no others have any."""

        def look_up(name: str) -> Addresses:
            if name not in addresses:
                raise NameNotFound("no such name", side=Side.EXTERNAL)
            return tuple(map(ip_address, addresses[name].split()))

        engine = self.firewall.engine
        engine.resolver.close()
        engine.resolver = Resolver(self.firewall.configuration.limits.resolve_timeout_s, look_up)

    async def record(self, number: int = 1) -> Record:
        """The record of this number, counted from 1, as soon as it is there."""
        async with asyncio.timeout(PATIENCE_S):
            while len(self.records) < number:
                self._changed.clear()
                await self._changed.wait()
        return self.records[number - 1]

    async def until(self, holds: Callable[[], bool]) -> None:
        """Turn the loop until it holds."""
        deadline = asyncio.get_running_loop().time() + PATIENCE_S
        while not holds():
            assert asyncio.get_running_loop().time() < deadline, "it never came to hold"
            await asyncio.sleep(0.001)

    async def quiet(self) -> None:
        """Every client and every connection is over."""
        firewall = self.firewall
        await self.until(lambda: not (len(firewall.supervisor) or firewall.engine.connections or self.guests))

    def told(self) -> list[dict[str, Any]]:
        """The operational log."""
        return [json.loads(line) for line in self._told.getvalue().splitlines()]

    def errors(self) -> list[dict[str, Any]]:
        return [line for line in self.told() if line["level"] == "error"]

    def keep(self, end: T) -> T:
        """To be closed at the end of the test."""
        self._ends.append(end)
        return end

    def part(self) -> None:
        """Every client and every server of the test goes away."""
        for peer in self._ends:
            peer.close()

    async def end(self) -> None:
        self.part()
        await self.firewall.stop()


async def _skip_socks5_reply(client: Peer) -> None:
    head = await client.receive(4)
    assert head[:3] == b"\x05\x00\x00", head
    await client.receive(18 if head[3] == 4 else 6)


@contextmanager
def short_home() -> Iterator[Path]:
    """A directory whose name leaves room for that of a Unix socket; pytest's own may not."""
    home = Path(tempfile.mkdtemp(prefix="doorward-"))
    try:
        yield home
    finally:
        shutil.rmtree(home)


@asynccontextmanager
async def world(policy: str = HEAD + RULE, files: dict[str, str] | None = None) -> AsyncIterator[World]:
    """A running firewall. At its end nothing is left: no descriptor, no task, no error in its log."""
    descriptors, tasks = _descriptors(), len(asyncio.all_tasks())
    with short_home() as home:
        for name, text in {"doorward.toml": policy, **(files or {})}.items():
            (home / name).write_text(text)
        told = io.StringIO()
        firewall = Firewall(load(home / "doorward.toml"), make_logger(told))
        await firewall.start()
        here = World(home, firewall, told)
        try:
            yield here
        finally:
            await here.end()
    assert here.errors_expected or not here.errors(), here.errors()
    await here.until(lambda: len(asyncio.all_tasks()) <= tasks)
    left_open = {fd: name for fd, name in _descriptors().items() if fd not in descriptors}
    assert not left_open, left_open


def _descriptors() -> dict[str, str]:
    """What this process has open, by number. One that an earlier test left to the collector may close meanwhile."""
    found: dict[str, str] = {}
    for path in Path("/proc/self/fd").iterdir():
        try:
            found[path.name] = str(path.readlink())
        except FileNotFoundError:
            pass  # the one that lists the directory
    return found
