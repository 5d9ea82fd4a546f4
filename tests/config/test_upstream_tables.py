from __future__ import annotations

import msgspec
import pytest

from doorward.config.upstream_tables import RouteTable, UpstreamTable


def test_an_upstream_is_verified_and_asked_for_addresses_unless_told_otherwise() -> None:
    table = msgspec.convert({"kind": "http", "address": "a:1"}, UpstreamTable)
    assert (table.verify, table.send, table.tls) == (True, "address", False)


def test_what_must_be_said() -> None:
    for table, expected in ((UpstreamTable, {"kind", "address"}), (RouteTable, {"name", "via"})):
        required = {field.encode_name for field in msgspec.structs.fields(table) if field.required}
        assert required == expected


@pytest.mark.parametrize("table", [{"name": "a", "via": ["b"], "form": []}, {"name": "a", "via": []}])
def test_a_key_that_is_not_known_and_an_empty_list_are_mistakes(table: dict[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(table, RouteTable)
