"""Small files, small functions: at most 400 lines a file and 50 a function.

A docstring counts, decorators do not: a test's table of cases stands there.

What is over may stand in tools/debts.txt with the size it has. A debt is a ratchet: when the code shrinks, its
number shrinks with it, and when it is paid, its line goes. The file may only get shorter.

    src/doorward/net/example.py 464
    src/doorward/net/example.py::Example.run 61
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from tools.tree import Breach, files, module

FILE_LINES_MAX: Final = 400
FUNCTION_LINES_MAX: Final = 50
SUFFIXES: Final = (".py", ".pyi", ".rs", ".c", ".h", ".sh", ".js")
DEBTS: Final = "tools/debts.txt"


class Size(NamedTuple):
    """The size of one file or function. `name` is what a debt calls it."""

    path: str
    line: int
    name: str
    lines: int
    lines_max: int


def check(root: Path) -> Iterator[Breach]:
    """What is over its limit without a debt, and every debt that is not exactly what is owed."""
    debts = _debts(root)
    owed: set[str] = set()
    for size in _sizes(root):
        debt = debts.get(size.name)
        if size.lines <= size.lines_max:
            continue
        owed.add(size.name)
        if debt is None or size.lines > debt.lines:
            least = size.lines_max if debt is None else debt.lines
            yield Breach(size.path, size.line, f"{size.lines} lines, at most {least}; split it by its nouns")
        elif size.lines < debt.lines:
            yield Breach(
                DEBTS, debt.line, f"{size.name} has shrunk; write {size.lines} in place of {debt.lines}"
            )
    for name, debt in debts.items():
        if name not in owed:
            yield Breach(DEBTS, debt.line, f"{name} owes nothing any more; delete this line")


class _Debt(NamedTuple):
    line: int
    lines: int


def _debts(root: Path) -> dict[str, _Debt]:
    path = root / DEBTS
    found: dict[str, _Debt] = {}
    for number, text in enumerate(path.read_text("utf-8").splitlines() if path.exists() else [], 1):
        if text and not text.startswith("#"):
            name, _, lines = text.rpartition(" ")
            found[name] = _Debt(number, int(lines))
    return found


def _sizes(root: Path) -> Iterator[Size]:
    for path in files(root):
        if not path.endswith(SUFFIXES):
            continue
        text = (root / path).read_text("utf-8")
        yield Size(path, 1, path, text.count("\n"), FILE_LINES_MAX)
        if path.endswith(".py"):
            yield from _functions(path, module(root, path).tree, "")


def _functions(path: str, parent: ast.AST, prefix: str) -> Iterator[Size]:
    for node in ast.iter_child_nodes(parent):
        inner = prefix
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            inner = f"{prefix}{node.name}."
            if not isinstance(node, ast.ClassDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                yield Size(path, node.lineno, f"{path}::{prefix}{node.name}", lines, FUNCTION_LINES_MAX)
        yield from _functions(path, node, inner)
