"""Every reason that the code can give is explained in docs/reasons.md, and every one explained there can be given.

A reason is a slug: lower case letters, digits and underscores. Where they are found in src, read but not run:

    class PeerReset: slug = "reset"                      class attributes and variables named slug or reason
    ProtocolError("bad_port", …), End(how="killed")      an argument for a parameter named as one of PARAMETERS, of
                                                         any function, class or named tuple that src defines
    def deny(self, reason="denied_by_filter")            what such a parameter is when nothing is said
    End: TypeAlias = Literal["closed", …]                the words of a type named as one of TYPES

A name in the place of a word stands for the constant of that name, `TABLE[key]` for any value of the table. What a
WireError says is left out: it is our own mistake, and nobody is told. A row is a table line that begins with a slug.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

from tools.tree import Breach, Module, modules

PAGE: Final = "docs/reasons.md"
SOURCE: Final = "src"
PARAMETERS: Final = frozenset({"reason", "slug", "how", "end", "otherwise"})
VARIABLES: Final = frozenset({"reason", "slug"})
TYPES: Final = frozenset({"End"})
NOT_TOLD: Final = frozenset({"WireError"})

_SLUG = re.compile(r"[a-z][a-z0-9_]*")
_ROW = re.compile(r"\|\s*`([a-z][a-z0-9_]*)`\s*\|")

Constants: TypeAlias = dict[str, ast.Constant | ast.Dict]
Signatures: TypeAlias = dict[str, set[int]]  # callee: places of its PARAMETERS


class Given(NamedTuple):
    """A reason, and the line of the code that gives it."""

    slug: str
    path: str
    line: int


def check(root: Path) -> Iterator[Breach]:
    """Reasons without a row, and rows without a reason."""
    if not (root / PAGE).exists():
        return
    rows: dict[str, int] = {}
    for number, line in enumerate((root / PAGE).read_text("utf-8").splitlines(), 1):
        if row := _ROW.match(line):
            rows.setdefault(row[1], number)
    reasons = given(modules(root, SOURCE))
    for slug, reason in reasons.items():
        if slug not in rows:
            yield Breach(
                reason.path, reason.line, f"reason '{slug}' has no row in {PAGE}; say what it means there"
            )
    for slug, number in rows.items():
        if slug not in reasons:
            yield Breach(PAGE, number, f"nothing in {SOURCE} gives the reason `{slug}`; delete the row")


def given(source: Iterable[Module]) -> dict[str, Given]:
    """Every reason, each with the first place that gives it."""
    known = list(source)
    constants, signatures = _constants(known), _signatures(known)
    found: dict[str, Given] = {}
    for module in known:
        for node in ast.walk(module.tree):
            for value in _places(node, signatures):
                for word in _words(value, constants):
                    if _SLUG.fullmatch(word):
                        found.setdefault(word, Given(word, module.path, value.lineno))
    return found


def _places(node: ast.AST, signatures: Signatures) -> Iterator[ast.expr]:
    """The expressions under this node that are reasons."""
    match node:
        case ast.Call(func=callee) if _last_name(callee) not in NOT_TOLD:
            yield from (keyword.value for keyword in node.keywords if keyword.arg in PARAMETERS)
            places = signatures.get(_last_name(callee), set())
            yield from (node.args[place] for place in places if place < len(node.args))
        case ast.FunctionDef(args=arguments) | ast.AsyncFunctionDef(args=arguments):
            yield from _defaults(arguments)
        case ast.Assign(targets=targets, value=value):
            yield from (value for target in targets if _last_name(target) in VARIABLES)
        case ast.AnnAssign(target=target, value=ast.expr() as value):
            if _last_name(target) in VARIABLES:
                yield value
            elif _last_name(target) in TYPES and isinstance(value, ast.Subscript):
                yield value.slice
        case _:
            pass


def _defaults(arguments: ast.arguments) -> Iterator[ast.expr]:
    positional = [*arguments.posonlyargs, *arguments.args]
    with_default = positional[len(positional) - len(arguments.defaults) :]
    yield from (
        value
        for argument, value in zip(
            [*with_default, *arguments.kwonlyargs], [*arguments.defaults, *arguments.kw_defaults], strict=True
        )
        if value is not None and argument.arg in PARAMETERS
    )


def _words(value: ast.expr, constants: Constants) -> Iterator[str]:
    """The texts that an expression may be, as far as they are written down."""
    match value:
        case ast.Constant(value=str() as word):
            yield word
        case ast.Name(id=name) | ast.Attribute(attr=name):
            constant = constants.get(name)
            if isinstance(constant, ast.Constant):
                yield from _words(constant, constants)
        case ast.Subscript(value=ast.Name(id=name)):
            table = constants.get(name)
            if isinstance(table, ast.Dict):
                for one in table.values:
                    yield from _words(one, constants)
        case ast.IfExp(body=one, orelse=other):
            yield from _words(one, constants)
            yield from _words(other, constants)
        case ast.BoolOp(values=several) | ast.Tuple(elts=several):
            for one in several:
                yield from _words(one, constants)
        case _:
            pass


def _constants(source: Iterable[Module]) -> Constants:
    """NAME: Final = "text", and NAME: Final = {…}, at the top of a module; for all modules together."""
    found: Constants = {}
    for module in source:
        for node in module.tree.body:
            match node:
                case (
                    ast.AnnAssign(target=ast.Name(id=name), value=ast.Constant() | ast.Dict() as value)
                    | ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant() | ast.Dict() as value)
                ):
                    found[name] = value
                case _:
                    pass
    return found


def _signatures(source: Iterable[Module]) -> Signatures:
    """For everything that can be called in src, where its reason stands. Equal names share their places."""
    found: Signatures = defaultdict(set)
    for module in source:
        for node in ast.walk(module.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                found[node.name] |= _places_of_parameters(node)
            elif isinstance(node, ast.ClassDef):
                found[node.name] |= _places_of_fields(node)
    return found


def _places_of_parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> set[int]:
    names = [argument.arg for argument in (*function.args.posonlyargs, *function.args.args)]
    return _reasons_among(names[names[:1] in (["self"], ["cls"]) :])


def _places_of_fields(each: ast.ClassDef) -> set[int]:
    """A class is called with what its __init__ takes; a named tuple, dataclass or struct with its fields."""
    for node in each.body:
        if isinstance(node, ast.FunctionDef) and node.name == "__init__":
            return _places_of_parameters(node)
    return _reasons_among([_last_name(node.target) for node in each.body if isinstance(node, ast.AnnAssign)])


def _reasons_among(names: list[str]) -> set[int]:
    return {place for place, name in enumerate(names) if name in PARAMETERS}


def _last_name(node: ast.expr) -> str:
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case _:
            return ""
