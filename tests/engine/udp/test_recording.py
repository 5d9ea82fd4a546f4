from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.engine.rig import Rig
from tests.engine.udp.rig import begin

from doorward.engine.outcome import End
from doorward.engine.target import target_of
from doorward.engine.udp.recording import record_of_destination

pytestmark = pytest.mark.anyio


async def test_a_destination_is_recorded_under_its_mapping(make_rig: Callable[..., Rig]) -> None:
    udp = await begin(make_rig())
    far = udp.far()
    await udp.exchange(far, b"four")
    destination = udp.mapping.memory.get(far.target)
    assert destination is not None
    record = record_of_destination(udp.connection, destination, End("idle_timeout", "ours"))
    assert (record.connection, record.session) == (udp.connection.id, udp.connection.session.id)
    assert (record.entry, record.transport, record.operation) == ("socks5", "udp", "destination")
    assert (record.client_address, record.client_port) == ("127.0.0.1", 4242)
    assert (record.address, record.port, record.host) == (*far.name, None)
    assert (record.action, record.reason, record.rule) == ("allow", "rule_allow", "local")
    assert (record.bytes_sent, record.bytes_received) == (4, 4)
    assert (record.end, record.ended_by, record.parent, record.filters) == (
        "idle_timeout",
        "ours",
        None,
        None,
    )


async def test_one_that_was_denied_has_the_address_that_was_asked_for(make_rig: Callable[..., Rig]) -> None:
    udp = await begin(make_rig(rules=[]))
    udp.say(b"x", target_of("2001:db8::1", 53))
    record = udp.record_of(target_of("2001:db8::1", 53))
    assert (record.address, record.port, record.action, record.rule) == ("2001:db8::1", 53, "deny", None)
