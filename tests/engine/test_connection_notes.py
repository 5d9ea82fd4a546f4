"""What a filter notes on a connection's record, while the connection goes on."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
from tests.engine.rig import Plugin, Rig, entry

from doorward.engine.connection import NOTES_MAX

pytestmark = pytest.mark.anyio

MakeRig = Callable[..., Rig]


def noted(filters: str | None) -> list[list[str]]:
    return [row for row in msgspec.json.decode(filters or "[]") if row[1] == "noted"]


async def test_a_note_stands_on_the_record_once_and_ends_nothing(make_rig: MakeRig) -> None:
    rig = make_rig(entry(Plugin("it", [])))
    connection = await rig.connect()
    for reason in ("ftp_bounce", "other", "ftp_bounce"):
        connection.note(reason, "it")
    assert connection.end is None
    connection.kill()
    connection.note("too_late", "it")
    record = await rig.record()
    assert noted(record.filters) == [["it", "noted", "ftp_bounce"], ["it", "noted", "other"]]


async def test_notes_have_a_limit_and_are_slugs(make_rig: MakeRig) -> None:
    rig = make_rig(entry(Plugin("it", [])))
    connection = await rig.connect()
    connection.note("no slug\n", "it")
    for number in range(NOTES_MAX + 5):
        connection.note(f"reason_{number}", "it")
    connection.kill()
    found = noted((await rig.record()).filters)
    assert found[0] == ["it", "noted", "refused_by_filter"]
    assert len(found) == NOTES_MAX
