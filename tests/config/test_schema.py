from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from doorward.config.schema import json_schema, schema_text

ROOT = Path(__file__).parents[2]
VALIDATOR = Draft202012Validator(json_schema())


def test_it_is_a_valid_schema() -> None:
    Draft202012Validator.check_schema(json_schema())


def test_the_sample_policy_agrees_with_it() -> None:
    assert list(VALIDATOR.iter_errors(tomllib.loads((ROOT / "doorward.toml").read_text()))) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"listn": {}},
        {"rule": [{"name": "a", "action": "permit", "protocols": ["any"]}]},
        {"rule": [{"name": "a", "action": "allow"}]},
        {"rule": [{"name": "a", "action": "allow", "protocols": ["any"], "from": "x"}]},
        {"rule": [{"name": "a", "action": "allow", "protocols": []}]},
        {"limits": {"idle_timeout_s": 0}},
        {"users": {"a:b": {"password": "x"}}},
        {"networks": {"a b": ["10.0.0.0/8"]}},
    ],
)
def test_a_wrong_policy_does_not(wrong: dict[str, Any]) -> None:
    assert not VALIDATOR.is_valid(wrong)


def test_every_key_says_what_it_is_for() -> None:
    for name, definition in json_schema()["$defs"].items():
        for key, schema in definition["properties"].items():
            assert schema.get("description"), f"{name}.{key}"


def test_the_written_file_is_current() -> None:
    """Write it anew with `python -m doorward.config.schema > docs/doorward.schema.json`."""
    assert (ROOT / "docs" / "doorward.schema.json").read_text() == schema_text()
