"""A filter's own sockets, connecting and accepted, keep the contract of everything that carries bytes."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.engine.filters import Copying
from tests.engine.rig import NAMED_RULES, Plugin, Rig, attaching, entry
from tests.engine.socket_rig import INBOUND, users
from tests.net.carrier_contract import CarrierContract, MakeEnds
from tests.net.carrier_world import Ends, failure, fill
from tests.net.certificates import Authority, usual
from tests.net.tls_ends import Contexts

from doorward.api import ClientKind, EventKind, IpFilter
from doorward.engine.sockets.network_socket import NetworkSocket
from doorward.net.tls_leg import TLSLeg

MakeRig = Callable[..., Rig]
RULES = (*NAMED_RULES, INBOUND)


async def facing(rig: Rig, buffer_bytes: int) -> tuple[NetworkSocket, NetworkSocket]:
    """One that connects, and the one that was accepted."""
    listener, near = users(rig), users(rig)
    if buffer_bytes:
        for sock in (listener, near):
            for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
                sock.set_option(socket.SOL_SOCKET, option, buffer_bytes)
    listener.set_ip_filter(IpFilter("127.0.0.1"))
    await listener.bind("127.0.0.1", 0)
    await listener.listen()
    await near.connect(*listener.socket_name)
    far = await listener.accept()
    await listener.close()
    return near, far


class TestDirect(CarrierContract):
    """Without data filters: the wire itself."""

    @pytest.fixture
    async def make_ends(self, make_rig: MakeRig) -> MakeEnds:
        rig = make_rig(rules=RULES)

        async def make(buffer_bytes: int) -> tuple[NetworkSocket, NetworkSocket]:
            return await facing(rig, buffer_bytes)

        return make


class TestFiltered(CarrierContract):
    """With a data filter on the way out, and another on the way in."""

    @pytest.fixture
    async def make_ends(self, make_rig: MakeRig) -> MakeEnds:
        async def attach(event: Any) -> None:
            await attaching(Copying())(event)

        plugin = Plugin("copying", [], connect=attach, accept=attach)
        events = (EventKind.CONNECT, EventKind.ACCEPT)
        rig = make_rig(entry(plugin, events=events, clients=(ClientKind.FILTER,)), rules=RULES)

        async def make(buffer_bytes: int) -> tuple[NetworkSocket, NetworkSocket]:
            return await facing(rig, buffer_bytes)

        return make

    async def test_a_sender_learns_that_the_far_side_has_closed(self, narrow: Ends) -> None:
        """A byte more may still find room with the filters on the way; not bytes for ever."""
        await fill(narrow.near)
        narrow.far.close_now()

        async def send_on() -> None:
            while True:
                await narrow.near.send(b"x" * 1000)

        await failure(send_on())


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return usual(Path(tmp_path_factory.mktemp("certificates")))


class TestTLSOverIt(CarrierContract):
    """As `create_ssl_network_socket` lays it."""

    @pytest.fixture
    async def make_ends(self, make_rig: MakeRig, authority: Authority) -> MakeEnds:
        rig, contexts = make_rig(rules=RULES), Contexts(authority)

        async def make(buffer_bytes: int) -> tuple[TLSLeg, TLSLeg]:
            return await contexts.over(*await facing(rig, buffer_bytes))

        return make
