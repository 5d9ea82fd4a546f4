"""Records of flows that the kernel has settled, from what its log tells of their first packets.

The kernel tells of 200 a second for each rule; counters miss none. How much passed, and when it ended, nobody knows.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from doorward.record.model import Record

if TYPE_CHECKING:
    from doorward.packetfilter.messages import Flow
    from doorward.packetfilter.model import Table

ENTRY: Final = "kernel"
NOT_COUNTED: Final = "forwarded by the kernel; bytes are not counted"


def append_flows(
    append: Callable[[Record], None], tables: tuple[Table | None, ...], flows: tuple[Flow, ...]
) -> None:
    """Put them on record. `tables`: those that may have told of them; a flow of any other is left out."""
    for flow in flows:
        record = record_of_flow(tables, flow)
        if record is not None:
            append(record)


def record_of_flow(tables: tuple[Table | None, ...], flow: Flow) -> Record | None:
    """None if no table knows the outcome: it may be another's, or the helper's mistake."""
    table = next((found for found in tables if found is not None and found.revision == flow.revision), None)
    if table is None or not 0 <= flow.outcome < len(table.outcomes):
        return None
    outcome = table.outcomes[flow.outcome]
    if outcome.action == "up":
        return None
    allowed = outcome.action == "allow"
    return Record(
        time_us=time.time_ns() // 1000,
        session=0,
        connection=0,
        entry=ENTRY,
        action=outcome.action,
        reason=outcome.reason,
        rule=outcome.rule,
        policy=table.revision,
        client_address=flow.source,
        client_port=flow.source_port,
        address=flow.destination,
        port=flow.port,
        transport=flow.transport,
        end=None if allowed else "refused",
        ended_by=None if allowed else "ours",
        detail=NOT_COUNTED if allowed else None,
        operation="connect" if flow.transport == "tcp" else "destination",
    )
