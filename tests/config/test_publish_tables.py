"""The form of `[[publish]]`."""

from __future__ import annotations

import msgspec
import pytest

from doorward.config.document import Document
from doorward.config.publish_tables import PublishTable

LEAST = {"name": "web", "listen": ["tcp/0.0.0.0:80"], "to": ["10.0.0.5:80"], "from": ["0.0.0.0/0"]}


@pytest.mark.parametrize("missing", sorted(LEAST))
def test_nothing_that_decides_who_reaches_what_has_a_default(missing: str) -> None:
    msgspec.convert(LEAST, PublishTable)
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({key: value for key, value in LEAST.items() if key != missing}, PublishTable)


@pytest.mark.parametrize(
    "more",
    [
        {"mode": "keep"},
        {"balance": "round"},
        {"proxy_protocol": {"write": "v3"}},
        {"proxy_protocol": {"reed": ["10.0.0.1"]}},
        {"health": {"port": 0}},
        {"health": {"interval_s": 0}},
        {"health": {"timeout_s": 3601}},
        {"to": []},
        {"other": 1},
    ],
)
def test_another_form_is_a_mistake(more: dict[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"publish": [{**LEAST, **more}]}, Document)
