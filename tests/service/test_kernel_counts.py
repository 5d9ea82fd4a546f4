"""Counters by the names that the policy has for them."""

from __future__ import annotations

from tests.packetfilter.tables import WEB, table_of

from doorward.service.kernel_counts import KernelCounts


def test_counters_are_summed_over_tables_and_called_by_their_rules() -> None:
    table, counts = table_of(WEB), KernelCounts()
    places = {str(outcome.rule): place for place, outcome in enumerate(table.outcomes)}
    packets = {f"o{places['web']}": 2, f"o{places['None']}": 3, "up": 1, "spoofed": 0, "unknown": 9}
    assert counts.with_those_of(table, packets) == {"allow: web": 2, "deny: default_deny": 3, "up": 1}
    counts.add(table, packets)
    assert counts.with_those_of(table, {"up": 1}) == {"allow: web": 2, "deny: default_deny": 3, "up": 2}
    assert counts.with_those_of(None, {}) == {"allow: web": 2, "deny: default_deny": 3, "up": 1}
