"""The form of `[transparent]`."""

from __future__ import annotations

import msgspec
import pytest

from doorward.config.transparent_tables import TransparentTable

LEAST = {"interfaces": ["lan0"], "networks": ["10.0.0.0/8"]}


@pytest.mark.parametrize("missing", sorted(LEAST))
def test_whose_traffic_is_taken_has_no_default(missing: str) -> None:
    msgspec.convert(LEAST, TransparentTable)
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({key: value for key, value in LEAST.items() if key != missing}, TransparentTable)


@pytest.mark.parametrize(
    "more", [{"method": "dnat"}, {"port": 0}, {"port": 65_536}, {"dns": "drop"}, {"udp": 1}, {"mark": 1}]
)
def test_what_it_does_not_know_is_a_mistake(more: dict[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({**LEAST, **more}, TransparentTable)
