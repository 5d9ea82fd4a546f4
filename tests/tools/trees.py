"""Small trees for the house's checks, written as data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from textwrap import dedent

from tools.tree import Breach


def plant(root: Path, contents: Mapping[str, str]) -> Path:
    """Write each file below `root`; indentation that all lines share is dropped. Returns `root`."""
    for path, text in contents.items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(dedent(text), "utf-8")
    return root


def places(breaches: Iterable[Breach]) -> list[tuple[str, int]]:
    """Where they are, in order."""
    return sorted((breach.path, breach.line) for breach in breaches)
