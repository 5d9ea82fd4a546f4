"""The outer side in a program's hands: the wire itself, or the near end of the filters before it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.engine.filters import Copying
from tests.engine.rig import Plugin, Rig, attaching, entry

from doorward.engine.joint import JointEnd
from doorward.engine.outer_end import outer_end

pytestmark = pytest.mark.anyio
MakeRig = Callable[..., Rig]


async def test_without_data_filters_it_is_the_wire(make_rig: MakeRig) -> None:
    rig = make_rig()
    connection = await rig.connect()
    assert outer_end(rig.engine, connection) is connection.external
    connection.kill()


async def test_with_data_filters_it_is_their_near_end_and_the_connection_ends_with_them(
    make_rig: MakeRig,
) -> None:
    rig = make_rig(entry(Plugin("copying", [], connect=attaching(Copying()))))
    connection = await rig.connect()
    server = rig.keep(await rig.server.accept())
    near = outer_end(rig.engine, connection)
    assert isinstance(near, JointEnd)
    await near.send(b"hello")
    assert await server.exactly(5) == b"hello"
    server.end()
    assert await near.recv() == b""
    await near.shutdown()
    assert await server.rest() == b""
    assert (await rig.record()).end == "closed"
