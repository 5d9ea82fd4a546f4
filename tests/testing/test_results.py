"""What the kit tells a test."""

from __future__ import annotations

import pytest
from tests.testing.conftest import MakeHarness
from tests.testing.plugins import Doing

from doorward.testing import Asked

pytestmark = pytest.mark.anyio


async def test_notes_are_told_each_once(make_harness: MakeHarness) -> None:
    def note(connection: object) -> None:
        for reason in ("a_reason", "a_reason", "another"):
            connection.note(reason, "mine")  # type: ignore[attr-defined]  # a connection

    outcome = await make_harness().run(Doing(note))
    assert outcome.notes == ("a_reason", "another")


def test_a_look_up_has_no_connection() -> None:
    with pytest.raises(AssertionError, match="no connection"):
        _ = Asked(results=("192.0.2.1",)).connection
