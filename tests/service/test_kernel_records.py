"""What the kernel tells becomes records, if a table of ours knows what it means."""

from __future__ import annotations

import msgspec
from tests.packetfilter.tables import WEB, table_of

from doorward.packetfilter.messages import Flow
from doorward.record.model import Record
from doorward.service.kernel_records import append_flows, record_of_flow

TABLE = table_of(WEB)
PLACES = {str(outcome.rule): place for place, outcome in enumerate(TABLE.outcomes) if outcome.action != "up"}
FLOW = Flow("revision", PLACES["web"], "tcp", "10.1.0.2", 40_000, "198.51.100.1", 80)


def test_a_flow_is_recorded_with_its_rule() -> None:
    found = record_of_flow((TABLE, None), FLOW)
    assert found is not None
    assert (found.entry, found.action, found.rule, found.reason) == ("kernel", "allow", "web", "rule_allow")
    assert (found.client_address, found.address, found.port, found.operation) == (
        "10.1.0.2", "198.51.100.1", 80, "connect",
    )  # fmt: skip
    denied = msgspec.structs.replace(FLOW, outcome=PLACES["None"], transport="udp")
    found = record_of_flow((None, TABLE), denied)
    assert found is not None
    assert (found.action, found.reason, found.end, found.operation) == (
        "deny", "default_deny", "refused", "destination",
    )  # fmt: skip


def test_what_no_table_knows_is_left_out() -> None:
    up = next(place for place, outcome in enumerate(TABLE.outcomes) if outcome.action == "up")
    records: list[Record] = []
    bad = [
        msgspec.structs.replace(FLOW, revision="other"),
        msgspec.structs.replace(FLOW, outcome=999),
        msgspec.structs.replace(FLOW, outcome=-1),
        msgspec.structs.replace(FLOW, outcome=up),
    ]
    append_flows(records.append, (None, TABLE), (*bad, FLOW))
    assert [record.rule for record in records] == ["web"]
