"""Two thousand sockets in every state, closed, forgotten, cancelled or overtaken by their session: nothing is left."""

from __future__ import annotations

import asyncio
import gc
import random
from collections.abc import Callable

import pytest
from tests.engine.filters import Copying
from tests.engine.rig import NAMED_RULES, Plugin, Rig, attaching, entry, wait_for
from tests.engine.socket_rig import INBOUND, nobodys, systems, systems_udp, users

from doorward.api import ClientKind, DoorwardError, IpFilter
from doorward.engine.sockets.network_socket import NetworkSocket

pytestmark = pytest.mark.anyio
MakeRig = Callable[..., Rig]
SOCKETS = 2_000
AT_ONCE = 20


async def live(rig: Rig, listener: NetworkSocket, dice: random.Random) -> None:
    """One socket's life, cut short somewhere."""
    session = rig.engine.sessions.private("127.0.0.1", None, frozenset()) if dice.random() < 0.2 else None
    make = dice.choice([users, systems])
    sock = users(rig, session=session) if make is users else systems(rig, session or nobodys(rig))
    own = [session] if session is not None else []
    if make is systems and session is None:
        own.append(next(s for s in rig.engine.sessions if sock._held in s.sockets))
    try:
        if dice.random() < 0.3:
            await sock.bind("127.0.0.1", 0)
        if dice.random() < 0.9:
            await sock.connect(*listener.socket_name)
            await sock.send(b"x" * dice.randrange(1, 50_000))
            if dice.random() < 0.5:
                await sock.recv()
        if dice.random() < 0.2 and session is not None:
            session.close()
        if dice.random() < 0.7:
            await sock.close(abortive=dice.random() < 0.3)
    except (DoorwardError, TimeoutError):
        pass  # cut short by somebody
    finally:
        del sock
        for made in own:
            if make is systems or dice.random() < 0.5:
                made.close()


async def answer(listener: NetworkSocket, dice: random.Random) -> None:
    """Accept whoever comes; answer, close, reset or forget."""
    while True:
        arrived = await listener.accept()
        try:
            data = await arrived.recv()
            if dice.random() < 0.7:
                await arrived.send(data[:10] or b"x")
            if dice.random() < 0.7:
                await arrived.close(abortive=dice.random() < 0.2)
        except DoorwardError:
            pass  # its peer has been cut short
        del arrived


@pytest.mark.parametrize("filtered", [False, True])
async def test_nothing_is_left(make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch, *, filtered: bool) -> None:
    monkeypatch.setattr("doorward.engine.sockets.holding.CLOSE_WAIT_S", 0.01)
    copying = Plugin("copying", [], connect=attaching(Copying()))
    filters = [entry(copying, clients=(ClientKind.FILTER,))] if filtered else []
    rig = make_rig(*filters, rules=(*NAMED_RULES, INBOUND))
    rig.engine.sessions.sessions_max = 5_000
    dice = random.Random(7)  # noqa: S311 - a schedule, not a secret
    listener = systems(rig)
    listener.set_ip_filter(IpFilter("127.0.0.1"))
    await listener.bind("127.0.0.1", 0)
    await listener.listen(1024)
    loop = asyncio.get_running_loop()
    answering = [loop.create_task(answer(listener, dice)) for _ in range(4)]
    lives: list[asyncio.Task[None]] = []
    for _ in range(SOCKETS // 2 // AT_ONCE):
        lives = [loop.create_task(live(rig, listener, dice)) for _ in range(AT_ONCE)]
        for _ in range(dice.randrange(30)):
            await asyncio.sleep(0)
        for task in dice.sample(lives, AT_ONCE // 4):
            task.cancel()
        await asyncio.wait(lives)
        for task in lives:
            assert task.cancelled() or task.exception() is None, task
    for task in answering:
        task.cancel()
    await asyncio.wait(answering)
    await listener.close()
    del lives, answering, listener
    gc.collect()
    for session in [s for s in rig.engine.sessions if s.number]:
        session.close()
    await wait_for(lambda: not rig.engine.connections, "all of it is over")
    assert not [kept for session in rig.engine.sessions for kept in session.sockets]
    assert len(rig.poller) == 0
    assert not rig.failures
    assert len(rig.recorder.records) > SOCKETS // 2


async def test_two_thousand_datagram_sockets_leave_nothing(make_rig: MakeRig) -> None:
    rig = make_rig()
    session = nobodys(rig)

    async def use(number: int) -> None:
        sock = systems_udp(rig, session)
        await sock.send_to(b"x", ("127.0.0.1", 9))
        if number % 2:
            await sock.close()

    for number in range(SOCKETS):
        await use(number)
    await wait_for(lambda: not rig.engine.connections, "all of it is over")
    assert not session.sockets
