"""TLS over what a filter holds: in the middle of a connection, over its own sockets, over itself; and never half."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tests.engine.filters import Copying, Pumping, copy
from tests.engine.rig import Plugin, Rig, attaching, entry, wait_for
from tests.engine.socket_rig import systems, systems_udp
from tests.engine.wires import PATIENCE_S, Wire
from tests.net.certificates import SERVER_NAME, Authority, usual

from doorward.api import (
    ConnectEvent,
    NotSupported,
    Socket,
    Terminating,
    TLSFailed,
    TLSUntrusted,
)
from doorward.api import TLSSocket as Contract
from doorward.engine.joint import joint
from doorward.engine.sockets.tls_socket import accept_over, connect_over
from doorward.net.tls_context import client_context, server_context

pytestmark = pytest.mark.anyio
MakeRig = Callable[..., Rig]
TIMEOUT_S = 5.0


class Sides:
    """A context for each."""

    def __init__(self, authority: Authority) -> None:
        self.client = client_context(ca=authority.file, alpn=("one", "two"))
        self.server = server_context(authority.identity("server"), alpn=("two",))

    async def connect(self, socket: Socket, name: str = SERVER_NAME) -> Contract:
        return await connect_over(socket, self.client, name, timeout_s=TIMEOUT_S)

    async def accept(self, socket: Socket) -> Contract:
        return await accept_over(socket, self.server, timeout_s=TIMEOUT_S)


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> Sides:
    return Sides(usual(Path(tmp_path_factory.mktemp("certificates"))))


class Talker:
    """The far end of a wire, with the standard library's own TLS."""

    def __init__(self, wire: Wire, context: ssl.SSLContext, *, server: bool) -> None:
        self.wire = wire
        self._into, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        name = None if server else SERVER_NAME
        self.tls = context.wrap_bio(self._into, self._out, server, name)

    async def until(self, call: Callable[[], Any]) -> Any:
        while True:
            try:
                result = call()
            except ssl.SSLWantReadError:
                await self._flush()
                data = await self.wire.recv()
                if not data:
                    return None
                self._into.write(data)
            else:
                await self._flush()
                return result

    async def _flush(self) -> None:
        if data := self._out.read():
            await self.wire.send(data)

    async def shake(self) -> None:
        await self.until(self.tls.do_handshake)

    async def say(self, data: bytes) -> None:
        await self.until(lambda: self.tls.write(data))

    async def end(self) -> None:
        with suppress(ssl.SSLWantReadError):  # the other side's end has not come yet
            self.tls.unwrap()
        await self._flush()

    async def hear(self) -> bytes:
        try:
            found = await self.until(lambda: self.tls.read(65_536))
        except ssl.SSLZeroReturnError:
            return b""
        assert found is not None, "the wire ended, and TLS had not"
        return bytes(found)


async def shaken(talker: Talker) -> None:
    """With TLS 1.3 a server learns of a client's refusal when it next reads."""
    await talker.shake()
    await talker.hear()


def pumping(pump: Callable[[Socket, Any, Any], Awaitable[None]]) -> Plugin:
    return Plugin("speaking TLS", [], connect=attaching(Pumping(pump)))


async def both(one: Socket, other: Socket) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(copy(one, other))
        group.create_task(copy(other, one))


async def test_a_filter_may_speak_tls_toward_both_sides_and_see_what_is_said(
    make_rig: MakeRig, sides: Sides
) -> None:
    seen: list[Contract] = []

    async def pump(internal: Socket, external: Socket, connection: Any) -> None:
        async with asyncio.TaskGroup() as group:
            inner = group.create_task(sides.accept(internal))
            outer = group.create_task(sides.connect(external))
        seen.extend((inner.result(), outer.result()))
        await both(*seen)

    rig = make_rig(entry(pumping(pump)))
    talk = await rig.converse()
    client = Talker(talk.client, sides.client, server=False)
    server = Talker(talk.server, sides.server, server=True)
    async with asyncio.timeout(PATIENCE_S):
        await asyncio.gather(client.shake(), server.shake())
        await client.say(b"hello")
        assert await server.hear() == b"hello"
        await server.say(b"welcome")
        assert await client.hear() == b"welcome"
        inner, outer = seen
        assert (inner.version, inner.alpn, inner.server_name) == ("TLSv1.3", "two", SERVER_NAME)
        assert (outer.version, outer.alpn) == ("TLSv1.3", "two")
        assert inner.peer_certificate is None
        assert outer.peer_certificate is not None
        await client.end()
        assert await server.hear() == b""
        await server.end()
        assert await client.hear() == b""
        talk.client.end()
        talk.server.end()
    assert (await rig.record()).end == "closed"


async def test_a_filter_that_returns_before_tls_is_over_ends_its_connection(
    make_rig: MakeRig, sides: Sides
) -> None:
    """What follows would be TLS records, passed on to who expects none."""

    async def pump(internal: Socket, external: Socket, connection: Any) -> None:
        tls = await sides.accept(internal)
        await external.send(await tls.recv())

    rig = make_rig(entry(pumping(pump)))
    talk = await rig.converse()
    client = Talker(talk.client, sides.client, server=False)
    await client.shake()
    await client.say(b"secret")
    assert await talk.server.is_reset()
    record = await rig.record()
    assert (record.action, record.reason) == ("fail", "filter_failed")
    assert len(rig.failures) == 1


async def test_an_emulating_filter_speaks_tls_and_ends_it_in_order_by_returning(
    make_rig: MakeRig, sides: Sides
) -> None:
    async def pump(internal: Socket, external: None, connection: Any) -> None:
        tls = await sides.accept(internal)
        assert await tls.recv() == b"ping"
        await tls.send(b"pong")

    async def emulate(event: ConnectEvent) -> None:
        event.connection.emulate_for_connect(Pumping(pump))  # type: ignore[arg-type]  # there is no external

    rig = make_rig(entry(Plugin("serving", [], connect=emulate)))
    emulated = await rig.emulated()
    client = Talker(emulated.client, sides.client, server=False)
    async with asyncio.timeout(PATIENCE_S):
        await client.shake()
        await client.say(b"ping")
        assert await client.hear() == b"pong"
        assert await client.hear() == b""
    emulated.client.end()
    assert (await rig.record()).end == "closed"


async def test_the_neighbour_in_a_chain_cannot_tell(make_rig: MakeRig, sides: Sides) -> None:
    async def pump(internal: Socket, external: Socket, connection: Any) -> None:
        await both(internal, await sides.connect(external))

    plugin = Plugin("two", [], connect=attaching(Copying(), Pumping(pump), Copying()))
    rig = make_rig(entry(plugin))
    talk = await rig.converse()
    server = Talker(talk.server, sides.server, server=True)
    async with asyncio.timeout(PATIENCE_S):
        await server.shake()
        await talk.client.send(b"plain")
        assert await server.hear() == b"plain"
        await server.say(b"secret")
        assert await talk.client.exactly(6) == b"secret"
    talk.client.reset()
    await rig.record()


async def test_tls_over_tls_over_a_socket_of_its_own(make_rig: MakeRig, sides: Sides) -> None:
    rig = make_rig()
    sock = systems(rig)
    await sock.connect("127.0.0.1", rig.server.port)
    server = rig.keep(await rig.server.accept())
    near, far = joint()
    outer = Talker(server, sides.server, server=True)

    async def relay_out() -> None:
        while data := await outer.hear():
            await far.send(data)

    async def relay_in() -> None:
        while data := await far.recv():
            await outer.say(data)

    async def shake() -> Contract:
        return await sides.connect(await sides.connect(sock))

    async with asyncio.timeout(PATIENCE_S):
        shaking = asyncio.get_running_loop().create_task(shake())
        await outer.shake()
        relays = [asyncio.get_running_loop().create_task(relay()) for relay in (relay_out, relay_in)]
        inner = await sides.accept(near)
        tls = await shaking
        await tls.send(b"deep")
        assert await inner.recv() == b"deep"
        await inner.send(b"below")
        assert await tls.recv() == b"below"
        await tls.close()
    for relay in relays:
        relay.cancel()
    await asyncio.wait(relays)
    await wait_for(lambda: not rig.engine.connections, "its connection ends with TLS")


async def test_whom_nobody_vouches_for_is_not_spoken_to(make_rig: MakeRig, sides: Sides) -> None:
    rig = make_rig()
    for name, kind in (("other.test", TLSUntrusted), (SERVER_NAME, TLSFailed)):
        sock = systems(rig)
        await sock.connect("127.0.0.1", rig.server.port)
        server = rig.keep(await rig.server.accept())
        connecting = asyncio.get_running_loop().create_task(sides.connect(sock, name))
        if kind is TLSUntrusted:
            with pytest.raises((ssl.SSLError, ConnectionResetError)):
                await shaken(Talker(server, sides.server, server=True))
        else:
            await server.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        with pytest.raises(kind):
            await connecting
        assert not sock.open
    assert not rig.engine.connections


async def test_what_it_cannot_be_laid_over(make_rig: MakeRig, sides: Sides) -> None:
    rig = make_rig()
    closed = systems(rig)
    await closed.close()
    fresh, datagrams = systems(rig), systems_udp(rig)
    for sock, kind in ((datagrams, NotSupported), (closed, Terminating)):
        with pytest.raises(kind):
            await sides.connect(sock)
    busy, _ = joint()
    reading = asyncio.get_running_loop().create_task(busy.recv())
    await asyncio.sleep(0)
    with pytest.raises(NotSupported):
        await sides.connect(busy)
    reading.cancel()
    await asyncio.wait([reading])
    with pytest.raises(Exception, match="not connected"):
        await sides.connect(fresh)


async def test_not_while_a_task_still_waits_for_it(make_rig: MakeRig, sides: Sides) -> None:
    async def pump(internal: Socket, external: Socket, connection: Any) -> None:
        reading = asyncio.get_running_loop().create_task(internal.recv())
        await asyncio.sleep(0)
        try:
            await sides.accept(internal)
        finally:
            reading.cancel()

    rig = make_rig(entry(pumping(pump)))
    await rig.converse()
    record = await rig.record()
    assert (record.reason, record.detail) == ("not_supported", "a task still waits for this socket")


async def test_the_socket_below_is_not_the_filters_any_more(make_rig: MakeRig, sides: Sides) -> None:
    met: list[type[Exception]] = []

    async def pump(internal: Socket, external: Socket, connection: Any) -> None:
        tls = await sides.accept(internal)
        for call in (internal.recv(), internal.send(b"clear text"), sides.accept(internal)):
            try:
                await call
            except Terminating as error:
                met.append(type(error))
        await tls.close()

    rig = make_rig(entry(pumping(pump)))
    talk = await rig.converse()
    client = Talker(talk.client, sides.client, server=False)
    await client.shake()
    assert await client.hear() == b""
    await rig.record()
    assert met == [Terminating] * 3
