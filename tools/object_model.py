"""docs/object-model.md keeps its word: each row of its tables names tests that prove it, and every one of them exists.

    | original call | ours | `tests/engine/test_grants.py::test_…`, … |

A row's last cell holds its tests. A row that has none says why, in words that begin with "not" or "none".
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tools.tree import Breach

PAGE: Final = "docs/object-model.md"
_TEST: Final = re.compile(r"`(tests/[\w/]+\.py)::(?:(\w+)::)?(\w+)`")
_WITHOUT: Final = re.compile(r"(not|none)\b", re.IGNORECASE)
_RULER: Final = re.compile(r"[\s|:-]+")


def check(root: Path) -> Iterator[Breach]:
    """Rows without a test, and tests that are not there."""
    page = root / PAGE
    if not page.exists():
        return
    known: dict[str, set[str]] = {}
    for number, line in enumerate(page.read_text("utf-8").splitlines(), 1):
        if not line.startswith("|") or _RULER.fullmatch(line) or line.rstrip(" |").endswith("proved by"):
            continue
        proof = line.strip().strip("|").rpartition("|")[2].strip()
        found = _TEST.findall(proof)
        if not found and not _WITHOUT.match(proof):
            yield Breach(
                PAGE, number, "this row names no test that proves it; write one, or say that there is none"
            )
        for path, _, name in found:
            if path not in known:
                known[path] = _tests(root / path)
            if name not in known[path]:
                yield Breach(PAGE, number, f"there is no test {name} in {path}")


def _tests(path: Path) -> set[str]:
    """The test functions of a file, those of its classes too; none if there is no such file."""
    if not path.exists():
        return set()
    tree = ast.parse(path.read_text("utf-8"))
    functions = (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef))
    return {function.name for function in functions if function.name.startswith("test_")}
