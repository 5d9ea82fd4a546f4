"""A factory for binds attaches to a promised UDP port as it does to a client's own mapping, without an event."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

import pytest
from tests.engine.filters import Marking
from tests.engine.rig import Rig
from tests.engine.udp.rig import begin
from tests.engine.visits import CLIENT, Visits
from tests.engine.wires import PATIENCE_S

from doorward.api import AccessDenied, DataFilter, DoorwardError, EventKind, IpFilter

pytestmark = pytest.mark.anyio

MakeRig = Callable[..., Rig]


async def test_it_attaches_to_a_promised_port_of_its_address_and_number(make_rig: MakeRig) -> None:
    rig = make_rig()
    here, loop = Visits(rig), asyncio.get_running_loop()
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer,
    ):
        for sock in (client, peer):
            sock.bind((CLIENT, 0))
            sock.setblocking(False)
        other = here.session.set_data_filter_factory(EventKind.BIND, lambda: Marking(b"?"), port=1)
        meant = here.session.set_data_filter_factory(EventKind.BIND, lambda: Marking(b"!"), address=CLIENT)
        [listening] = await here.session.bind_for_client(
            client.getsockname(), transport="udp", address=CLIENT, ip_filter=IpFilter(CLIENT)
        )
        assert (meant.uses, other.uses) == (1, 0)
        await loop.sock_sendto(peer, b"hello", listening.external_socket_name)
        async with asyncio.timeout(PATIENCE_S):
            data, source = await loop.sock_recvfrom(client, 100)
            assert data == b"hello!"
            await loop.sock_sendto(client, b"answer", source)
            assert (await loop.sock_recvfrom(peer, 100))[0] == b"answer!"
        listening.kill()
        other.cancel()


async def test_one_that_fails_leaves_no_port(make_rig: MakeRig) -> None:
    def fail() -> DataFilter:
        raise ZeroDivisionError

    rig = make_rig()
    here = Visits(rig)
    here.session.set_data_filter_factory(EventKind.BIND, fail)
    with pytest.raises(DoorwardError) as refused:
        await here.session.bind_for_client((CLIENT, 4000), transport="udp", address=CLIENT)
    assert isinstance(refused.value, AccessDenied)
    assert refused.value.reason == "filter_failed"
    assert rig.engine.connections == {}
    assert rig.engine.grants.alive == 0
    rig.failures.clear()


async def test_it_attaches_to_a_clients_own_mapping(make_rig: MakeRig) -> None:
    rig = make_rig()
    session = rig.engine.sessions.get("127.0.0.1", None)
    grant = session.set_data_filter_factory(EventKind.BIND, lambda: Marking(b"!"))
    udp = await begin(rig)
    far = udp.far()
    udp.say(b"hello", far.target)
    data, source = await far.receive()
    assert data == b"hello!"
    far.send(b"answer", source)
    await udp.heard(b"answer!", far.name)
    assert (grant.active, grant.uses) == (False, 1)
