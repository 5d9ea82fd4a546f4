"""Reading a PROXY header from a wire: what is left behind it, and what goes wrong on the way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from ipaddress import ip_address

import pytest
from tests.engine.rig import Rig
from tests.engine.wires import PATIENCE_S

from doorward.api.errors import HandshakeTimedOut, PeerReset
from doorward.engine.publishing.greeting import read_greeting
from doorward.wire.errors import ProtocolError
from doorward.wire.proxy_protocol import HEADER_BYTES_MAX, SIGNATURE, Place, write_header

pytestmark = pytest.mark.anyio

MakeRig = Callable[..., Rig]
SOURCE = Place(ip_address("192.0.2.1"), 1)
HEADER = write_header(2, SOURCE, Place(ip_address("192.0.2.2"), 2))


async def test_what_comes_behind_the_header_is_still_there_and_the_header_was_never_counted(
    make_rig: MakeRig,
) -> None:
    wire, leg = make_rig().client()
    await wire.send(HEADER + b"hello")
    header = await read_greeting(leg, 5.0)
    assert header.source == SOURCE
    assert leg.received == 5
    async with asyncio.timeout(PATIENCE_S):
        assert await leg.recv() == b"hello"
    assert leg.received == 5
    leg.close_now()


async def test_a_header_of_any_length_is_read_within_bounds(make_rig: MakeRig) -> None:
    wire, leg = make_rig().client()
    await wire.send(SIGNATURE + b"\x20\x00\x10\x00" + bytes(4096))
    assert (await read_greeting(leg, 5.0)).size == HEADER_BYTES_MAX
    leg.close_now()


async def test_each_way_to_fail_has_its_own_error(make_rig: MakeRig) -> None:
    rig = make_rig()
    wire, leg = rig.client()
    with pytest.raises(HandshakeTimedOut):
        await read_greeting(leg, 0.01)
    await wire.send(b"nonsense")
    with pytest.raises(ProtocolError):
        await read_greeting(leg, 5.0)
    leg.close_now()
    wire, leg = rig.client()
    wire.reset()
    with pytest.raises(PeerReset):
        await read_greeting(leg, 5.0)
