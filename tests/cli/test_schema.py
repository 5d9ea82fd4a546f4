from __future__ import annotations

import json

import jsonschema
from tests.cli.conftest import Run

from doorward.config.schema import schema_text


def test_the_schema_is_printed_and_is_one(run: Run) -> None:
    output = run("schema").stdout
    assert output == schema_text()
    jsonschema.Draft202012Validator.check_schema(json.loads(output))
