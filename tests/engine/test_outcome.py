"""How an end is told."""

from __future__ import annotations

import pytest

from doorward.api import FilterFailed, PeerReset, Refuse, Side
from doorward.engine.outcome import End, end_of


@pytest.mark.parametrize(
    ("error", "end"),
    [
        (Refuse("not_today"), End("not_today", Side.OURS)),
        (FilterFailed("x", side=Side.EXTERNAL), End("filter_failed", Side.OURS)),
        (PeerReset("x", side=Side.EXTERNAL), End("reset", Side.EXTERNAL)),
        (PeerReset("x", side=Side.INTERNAL), End("reset", Side.INTERNAL)),
    ],
)
def test_an_end_names_the_side_that_caused_it_and_a_filters_is_ours(error: PeerReset, end: End) -> None:
    assert end_of(error) == end
