"""From what `tomllib` read to the typed document, with every wrong key, type and number reported.

msgspec converts a right document at once, but stops at the first mistake of a wrong one. A wrong one is walked
here instead, along the same type descriptions, so that all its mistakes are found in one run. Where a value is
missing or wrong a neutral one stands in (an empty text, an empty list), so that the rest can be judged; nothing
else ever yields an empty text, and later checks pass over it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date, time
from typing import Any, Final

import msgspec
from msgspec import UNSET
from msgspec import inspect as types

from doorward.config.document import Document
from doorward.config.lines import KeyPath
from doorward.config.problems import Report, did_you_mean

_SECRET: Final = "password"  # noqa: S105 - the key whose values are never quoted


def shape(data: Mapping[str, Any], report: Report) -> Document:
    """The document that `data` describes; where it is wrong, `report` says so and a stand-in is given."""
    try:
        return msgspec.convert(data, Document)
    except msgspec.ValidationError as refusal:
        document: Document = _value(data, types.type_info(Document), (), report)
        if not report.failed:
            raise AssertionError("the walk accepted what msgspec refused") from refusal
        return document


def _value(value: object, kind: types.Type, path: KeyPath, report: Report) -> Any:
    kind, plain = _bare(kind)
    match kind:
        case types.AnyType():
            return value
        case types.StructType() if isinstance(value, dict):
            return _table(value, kind, path, report)
        case types.DictType() if isinstance(value, dict):
            for key in value:
                _check_key(key, kind.key_type, (*path, key), report)
            return {key: _value(inner, kind.value_type, (*path, key), report) for key, inner in value.items()}
        case types.ListType() if isinstance(value, list):
            if not value and kind.min_length:
                report.error(path, "an empty list matches nothing; name something in it")
            return [
                _value(inner, kind.item_type, (*path, index), report) for index, inner in enumerate(value)
            ]
    wrong = _wrong_leaf(value, kind, plain)
    if wrong:
        report.error(path, wrong if path[-1] != _SECRET else _without_value(kind, value))
        return _stand_in(kind)
    return value


def _table(table: dict[str, Any], kind: types.StructType, path: KeyPath, report: Report) -> Any:
    known = {field.encode_name: field for field in kind.fields}
    for key in table:
        if key not in known:
            what = "key" if path else "table or key"
            report.unknown((*path, key), what, key, known)
    values: dict[str, Any] = {}
    for name, field in known.items():
        if name in table:
            values[field.name] = _value(table[name], field.type, (*path, name), report)
        elif field.required:
            report.error(path, f'"{name}" is missing; expected {_expected(*_bare(field.type))}')
            values[field.name] = _stand_in(_bare(field.type)[0])
    return kind.cls(**values)


def _check_key(key: str, kind: types.Type, path: KeyPath, report: Report) -> None:
    bare, plain = _bare(kind)
    if isinstance(bare, types.StrType) and bare.pattern and not re.search(bare.pattern, key):
        report.error(path, f'"{key}" cannot be a name here: expected {plain}')


def _bare(kind: types.Type) -> tuple[types.Type, str]:
    """A type without its wrappings, and its description in plain words if it carries one."""
    plain = ""
    while True:
        if isinstance(kind, types.Metadata):
            plain = (kind.extra or {}).get("plain", plain)
            kind = kind.type
        elif isinstance(kind, types.UnionType):  # only `something or left out` occurs
            kind = next(inner for inner in kind.types if not _is_unset(inner))
        else:
            return kind, plain


def _is_unset(kind: types.Type) -> bool:
    return isinstance(kind, types.CustomType) and kind.cls is type(UNSET)


def _wrong_leaf(value: object, kind: types.Type, plain: str) -> str:
    """What is wrong with a text, number or choice; nothing if it is right."""
    match kind:
        case types.StrType() if isinstance(value, str):
            if not value and kind.min_length:
                return "the text is empty"
            if kind.max_length is not None and len(value) > kind.max_length:
                return f"{len(value)} characters are too many; at most {kind.max_length}"
            if kind.pattern is None or re.search(kind.pattern, value):
                return ""
            return f'"{value}" cannot be a name here: expected {plain}'
        case types.BoolType() if isinstance(value, bool):
            return ""
        case types.IntType() if isinstance(value, int) and not isinstance(value, bool):
            in_range = _in_range(value, kind)
        case types.FloatType() if isinstance(value, int | float) and not isinstance(value, bool):
            in_range = _in_range(value, kind)
        case types.LiteralType() if isinstance(value, str):
            if value in kind.values:
                return ""
            return f'expected {_expected(kind, plain)}, found "{value}"{did_you_mean(value, map(str, kind.values))}'
        case _:
            return f"expected {_expected(kind, plain)}, found {_found(value)}{_brackets(value, kind)}"
    return "" if in_range else f"expected {_expected(kind, plain)}, found {_found(value)}"


def _in_range(value: float, kind: types.IntType | types.FloatType) -> bool:
    """Written so that not-a-number is out of every range."""
    return (
        (kind.gt is None or value > kind.gt)
        and (kind.ge is None or value >= kind.ge)
        and (kind.le is None or value <= kind.le)
    )


def _brackets(value: object, kind: types.Type) -> str:
    """The two slips with brackets that everybody makes once."""
    if not isinstance(kind, types.ListType):
        return ""
    if isinstance(value, str):
        return "; put it in brackets: [ … ]"
    return "; its heading takes two pairs of brackets: [[ … ]]" if isinstance(value, dict) else ""


def _without_value(kind: types.Type, value: object) -> str:
    return f"expected {_expected(kind, '')}, found {_found(value).split(' (')[0]}"


def _expected(kind: types.Type, plain: str) -> str:
    match kind:
        case types.StrType():
            return plain or "a text"
        case types.IntType() | types.FloatType():
            noun = "a whole number" if isinstance(kind, types.IntType) else "a number"
            low = f"above {kind.gt:g}" if kind.gt is not None else f"from {kind.ge}"
            return f"{noun} {low} to {kind.le:.16g}"
        case types.LiteralType():
            return " or ".join(f'"{choice}"' for choice in kind.values)
        case types.BoolType():
            return "true or false"
        case types.ListType():
            return "a list of " + (
                "tables" if isinstance(_bare(kind.item_type)[0], types.StructType) else "texts"
            )
        case _:
            return "a table"


def _found(value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case str():
            return f'a text ("{value}")' if len(value) <= 100 else "a text"
        case int() | float():
            return (
                "a huge number"
                if isinstance(value, int) and value.bit_length() > 100
                else f"a number ({value})"
            )
        case list():
            return "a list"
        case dict():
            return "a table"
        case date() | time():
            return f"a date or time ({value})"
        case _:
            return f"a {type(value).__name__}"


def _stand_in(kind: types.Type) -> Any:
    match kind:
        case types.StructType():
            return kind.cls(
                **{field.name: _stand_in(_bare(field.type)[0]) for field in kind.fields if field.required}
            )
        case types.ListType():
            return []
        case types.DictType():
            return {}
        case types.LiteralType():
            return kind.values[0]
        case types.BoolType():
            return False
        case types.IntType() | types.FloatType():
            return kind.le
        case _:
            return ""
