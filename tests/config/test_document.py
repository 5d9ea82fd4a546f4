from __future__ import annotations

from pathlib import Path

import msgspec

from doorward.config.document import Document, FilterTable, LimitsTable, LogTable, RuleTable
from doorward.config.model import Limits, LogSettings
from doorward.config.ports import BUILT_IN
from doorward.config.schema import json_schema


def test_the_limits_of_the_file_are_the_limits_of_the_firewall() -> None:
    assert msgspec.structs.asdict(LimitsTable()) == msgspec.structs.asdict(Limits())


def test_the_log_table_has_the_defaults_of_the_log_settings() -> None:
    defaults = {field.name: field.default for field in msgspec.structs.fields(LogSettings)}
    table = LogTable()
    assert table.size_max_mb * 2**20 == defaults["total_bytes_max"]
    assert (table.keep_days, table.on_failure) == (defaults["keep_days"], defaults["on_failure"])


def test_filters_fail_closed_unless_told_otherwise() -> None:
    assert FilterTable(name="a", use="a.py").fail == "closed"


def test_a_rule_must_say_what_it_is_about() -> None:
    required = {field.encode_name for field in msgspec.structs.fields(RuleTable) if field.required}
    assert required == {"name", "action", "protocols"}


def test_an_empty_file_is_a_whole_document() -> None:
    assert msgspec.convert({}, Document) == Document()


def test_the_reference_for_operators_names_every_key_and_every_built_in_protocol() -> None:
    reference = (Path(__file__).parents[2] / "docs" / "policy.md").read_text()
    keys = {key for definition in json_schema()["$defs"].values() for key in definition["properties"]}
    assert [key for key in sorted(keys) if f"`{key}`" not in reference and f"[{key}" not in reference] == []
    assert [name for name in BUILT_IN if f"| `{name}` |" not in reference] == []


def test_the_reference_s_defaults_of_the_limits_are_true() -> None:
    reference = (Path(__file__).parents[2] / "docs" / "policy.md").read_text()
    for key, default in msgspec.structs.asdict(Limits()).items():
        row = next(row for row in reference.splitlines() if row.startswith(f"| `{key}` |"))
        assert row.endswith(f"| `{default:g}` |" if isinstance(default, float) else f"| `{default}` |")
