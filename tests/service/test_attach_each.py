from __future__ import annotations

from typing import Any, Final, cast

import pytest

from doorward.api.contracts import Connection
from doorward.api.events import AcceptEvent, BindEvent, ConnectEvent, UdpDestination, UdpDestinationEvent
from doorward.api.filters import DataFilter, Interest, SessionFilter
from doorward.api.sessions import Session
from doorward.service.attach_each import AttachEach

pytestmark = pytest.mark.anyio

SETTINGS: Final = {"word": "hello"}
NOBODY: Final = cast(Session, None)
HERE: Final = ("192.0.2.1", 80)


class Mine(DataFilter):
    interest = Interest.of("tcp/80")


class Attached:
    """Takes what is attached to it."""

    def __init__(self) -> None:
        self.filters: list[DataFilter] = []

    def attach_data_filter(self, data_filter: DataFilter) -> None:
        self.filters.append(data_filter)


async def attached(handler: str, event: type[Any], **fields: object) -> list[DataFilter]:
    """What one event leads to."""
    connection = Attached()
    session_filter = AttachEach(Mine, {}).session_filter(NOBODY)
    told = event(connection=cast(Connection, connection), protocol=None, settings=SETTINGS, **fields)
    await getattr(session_filter, handler)(told)
    return connection.filters


@pytest.mark.parametrize(
    ("handler", "event", "fields"),
    [
        ("on_connect", ConnectEvent, {"host": None, "address": "192.0.2.1", "port": 80}),
        ("on_accept", AcceptEvent, {"listening": None, "remote": HERE, "local": HERE}),
        ("on_bind", BindEvent, {"transport": "udp", "address": "", "port": 0}),
        ("on_udp_destination", UdpDestinationEvent, {"destination": cast(UdpDestination, None)}),
    ],
)
async def test_wherever_bytes_will_flow_it_attaches_with_the_settings_of_their_rule(
    handler: str, event: type[Any], fields: dict[str, object]
) -> None:
    (found,) = await attached(handler, event, **fields)
    assert type(found) is Mine
    assert found.settings is SETTINGS


async def test_a_tcp_port_carries_no_bytes_itself() -> None:
    assert await attached("on_bind", BindEvent, transport="tcp", address="", port=0) == []


async def test_each_connection_has_an_instance_of_its_own() -> None:
    plugin, connection = AttachEach(Mine, {}), Attached()
    event = ConnectEvent(cast(Connection, connection), None, "192.0.2.1", 80, None)
    sessions: list[SessionFilter] = [plugin.session_filter(NOBODY) for _ in range(2)]
    for session_filter in (*sessions, sessions[0]):
        await session_filter.on_connect(event)
    assert len(set(map(id, connection.filters))) == 3


def test_its_interest_is_the_data_filter_s() -> None:
    assert AttachEach(Mine, {}).interest is Mine.interest
