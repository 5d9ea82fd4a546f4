"""The form of the policy file as JSON Schema (draft 2020-12), for editors that complete and underline TOML.

It knows keys, types, limits and what each key is for; what names refer to only `doorward check` can judge.
`docs/doorward.schema.json` is this, written out with `python -m doorward.config.schema`.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import msgspec

from doorward.config.document import Document

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schema() -> dict[str, Any]:
    """The schema as plain data, ready for `json.dumps`."""
    schema: dict[str, Any] = {"$schema": DIALECT, "title": "Doorward policy", **msgspec.json.schema(Document)}
    definitions = schema["$defs"]
    for definition in definitions.values():
        definition.pop("title", None)  # a class name says nothing to an operator
    return schema


def schema_text() -> str:
    """The schema as the text of `docs/doorward.schema.json`."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(schema_text())
