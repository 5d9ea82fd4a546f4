"""The ladder of rooms: a room imports only rooms below it, never one beside it; pure rooms do no I/O.

    cli
    console
    service
    entry, filters
    engine
    capture, net, packetfilter, record
    config
    policy, api, wire                the pure rooms

`testing` stands beside the ladder: the kit may use what stands under the engine, and nothing in the product uses the
kit. `doorward/__init__.py` and `doorward/__main__.py` are in no room. An import for the type checker alone counts:
whoever reads the module has to know the other room all the same.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final, NamedTuple

from tools.tree import Breach, Module, modules

PACKAGE: Final = "doorward"
SOURCE: Final = "src/doorward"
LADDER: Final = (
    ("cli",),
    ("console",),
    ("service",),
    ("entry", "filters"),
    ("engine",),
    ("capture", "net", "packetfilter", "record"),
    ("config",),
    ("policy", "api", "wire"),
)
BESIDE_THE_LADDER: Final = {"testing": frozenset({"api", "config", "engine", "net", "policy", "wire"})}
OUTSIDE_ROOMS: Final = ("__init__.py", "__main__.py")

# What the pure rooms may take from the standard library: nothing that reads a clock, a file, a socket or a seed.
PURE_MODULES: Final = frozenset(
    {
        *(
            "__future__",
            "abc",
            "base64",
            "binascii",
            "bisect",
            "collections",
            "contextlib",
            "copy",
            "dataclasses",
        ),
        *(
            "datetime",
            "difflib",
            "enum",
            "functools",
            "hashlib",
            "heapq",
            "ipaddress",
            "itertools",
            "json",
            "math",
        ),
        *("operator", "re", "string", "struct", "types", "typing", "unicodedata"),
    }
)
PURE_EXCEPTIONS: Final = {
    "wire/http/": frozenset({"httptools"})
}  # docs/decisions: llhttp is stricter than ours
IMPURE_CALLS: Final = frozenset({"open", "input", "print"})


class Import(NamedTuple):
    """One import of one module, by its full name."""

    line: int
    name: str


def _rooms_below() -> dict[str, frozenset[str]]:
    """For each room what it may import from other rooms."""
    found = dict(BESIDE_THE_LADDER)
    for step, rooms in enumerate(LADDER):
        below = frozenset(room for lower in LADDER[step + 1 :] for room in lower)
        found.update(dict.fromkeys(rooms, below))
    return found


MAY_IMPORT: Final = _rooms_below()


def check(root: Path) -> Iterator[Breach]:
    """Every import below src/doorward that its room does not allow."""
    for module in modules(root, SOURCE):
        place = PurePosixPath(module.path).relative_to(SOURCE)
        if len(place.parts) == 1:
            if place.name not in OUTSIDE_ROOMS:
                yield Breach(module.path, 1, "in no room; move it into the room whose work it does")
            continue
        room = place.parts[0]
        if room not in MAY_IMPORT:
            yield Breach(
                module.path, 1, f"room '{room}' has no place on the ladder; give it one in tools/layers.py"
            )
            continue
        yield from _between_rooms(module, room)
        if room in LADDER[-1]:
            yield from _purity(module, str(place))


def imports(tree: ast.Module) -> Iterator[Import]:
    """What a module imports, wherever it does; `import_module("…")` with a written name counts too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (Import(node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            if base == PACKAGE:  # the rooms are its attributes
                yield from (Import(node.lineno, f"{base}.{alias.name}") for alias in node.names)
            else:
                yield Import(node.lineno, base)
        elif isinstance(node, ast.Call) and _callee(node) in {"import_module", "__import__"} and node.args:
            name = node.args[0]
            if isinstance(name, ast.Constant) and isinstance(name.value, str):
                yield Import(node.lineno, name.value)


def _between_rooms(module: Module, room: str) -> Iterator[Breach]:
    for line, name in imports(module.tree):
        if name.startswith("."):
            yield Breach(
                module.path, line, f"write the full name in place of '{name}', so that the room is seen"
            )
            continue
        top, _, rest = name.partition(".")
        other = rest.partition(".")[0]
        if top != PACKAGE or other not in MAY_IMPORT or other == room or other in MAY_IMPORT[room]:
            continue
        yield Breach(module.path, line, _misplaced(room, other))


def _misplaced(room: str, other: str) -> str:
    if other in BESIDE_THE_LADDER:
        return f"the product does not use its own kit '{other}'; move what both need into a room below"
    if room in BESIDE_THE_LADDER:
        allowed = ", ".join(sorted(MAY_IMPORT[room]))
        return f"'{room}' may import {allowed}, not '{other}'"
    where = "stands beside" if any({room, other} <= set(rooms) for rooms in LADDER) else "stands above"
    return f"'{other}' {where} '{room}' on the ladder; move what both need below, or hand it in from above"


def _purity(module: Module, place: str) -> Iterator[Breach]:
    granted = frozenset[str]().union(
        *(names for way, names in PURE_EXCEPTIONS.items() if place.startswith(way))
    )
    for line, name in imports(module.tree):
        top = name.partition(".")[0]
        if top in PURE_MODULES or top in granted or top in {PACKAGE, ""}:
            continue
        if top in sys.stdlib_module_names:
            advice = (
                "hand in what it would give; if it is pure indeed, add it to PURE_MODULES in tools/layers.py"
            )
        else:
            advice = "the pure rooms have no dependencies; move the code that needs it into a room above"
        yield Breach(module.path, line, f"a pure room imports '{name}': {advice}")
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in IMPURE_CALLS:
            yield Breach(
                module.path, node.lineno, f"a pure room calls {node.func.id}(): hand in what it would give"
            )


def _callee(call: ast.Call) -> str:
    match call.func:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case _:
            return ""
