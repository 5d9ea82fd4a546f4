"""Whatever happens to ports, peers, promises and clients, in whatever order: nothing is left of it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest
from tests.engine.rig import Plugin, Rig, wait_for
from tests.engine.visits import CLIENT, RULES, Visits, hearing
from tests.engine.wires import Wire

from doorward.api import DoorwardError, EventKind, Refuse
from doorward.api.ip_filter import IpFilter
from doorward.engine.connection import Connection

pytestmark = pytest.mark.anyio

MakeRig = Callable[..., Rig]
STEPS = 60


class Schedule:
    """A random life of one client's ports."""

    def __init__(self, rig: Rig, seed: int) -> None:
        self.random = random.Random(seed)  # noqa: S311 - to be run again as it was
        self.rig = rig
        self.here = Visits(rig)
        self.server = rig.another_server()
        self.listening: list[Connection] = []
        self.grants: list[Any] = []
        self.peers: list[Wire] = []

    async def run(self) -> None:
        steps = [
            self.ask,
            self.promise,
            self.visit,
            self.visit,
            self.allow,
            self.kill,
            self.cancel,
            self.leave,
        ]
        for _ in range(STEPS):
            try:
                await self.random.choice(steps)()
            except (DoorwardError, ConnectionRefusedError):
                pass  # there was nothing to do it to, or it was refused
            for _ in range(self.random.randrange(4)):
                await asyncio.sleep(0)

    async def ask(self) -> None:
        connection, _ = await self.here.asked(self.random.choice([CLIENT, None, "127.0.0.2"]))
        self.listening.append(connection)

    async def promise(self) -> None:
        late = self.random.random() < 0.3
        self.listening += await self.here.session.bind_for_client(
            None if late else (CLIENT, self.server.port),
            address=CLIENT,
            count=self.random.randint(1, 3),
            ip_filter=IpFilter("127.0.0.0/30"),
            multiple=self.random.random() < 0.5,
            timeout_s=self.random.choice([0.001, 60.0]),
        )

    async def visit(self) -> None:
        if self.listening:
            name = self.random.choice(self.listening[-4:]).external_socket_name
            self.peers.append(self.here.visit(name, self.random.choice([CLIENT, "127.0.0.2", "127.0.0.9"])))

    async def allow(self) -> None:
        if self.listening:
            name = self.random.choice(self.listening).external_socket_name
            session = self.here.session
            self.grants.append(
                session.retroactive_allow_bind("tcp", name, ip_filter=IpFilter("127.0.0.0/30"))
            )

    async def kill(self) -> None:
        if self.listening:
            self.random.choice(self.listening).kill()

    async def cancel(self) -> None:
        if self.grants:
            self.random.choice(self.grants).cancel()

    async def leave(self) -> None:
        if self.peers:
            peer = self.peers.pop(self.random.randrange(len(self.peers)))
            peer.reset() if self.random.random() < 0.5 else peer.close()


@pytest.mark.parametrize("seed", range(12))
async def test_nothing_is_left(make_rig: MakeRig, seed: int) -> None:
    moods = random.Random(seed)  # noqa: S311 - the same

    async def moody(event: Any) -> None:
        mood = moods.random()
        if mood < 0.1:
            raise Refuse("bad_mood")
        if mood < 0.2 and not hasattr(event, "address"):
            event.connection.deny()
        if mood < 0.5:
            await asyncio.sleep(0)
        if 0.4 < mood < 0.45:
            event.connection.kill()

    plugin = Plugin("it", [], bind=moody, listen=moody, accept=moody, established=moody)
    rig = make_rig(hearing(plugin, EventKind.ESTABLISHED, clients=["socks", "filter"]), rules=RULES)
    schedule = Schedule(rig, seed)
    await schedule.run()
    for connection in list(rig.engine.connections.values()):
        connection.kill()
    for grant in schedule.grants:
        grant.cancel()
    await wait_for(lambda: not rig.engine.connections, "everything has ended")
    assert rig.engine.arrivals.open == 0
    assert rig.engine.grants.alive == 0
    assert not schedule.here.session.promises
    accepted = {r.connection for r in rig.recorder.records if r.connection}
    assert len(accepted) == sum(1 for r in rig.recorder.records if r.connection)  # one record each
