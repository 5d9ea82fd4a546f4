"""The files that the house's checks read, and what a check says when one of them is not as it should be.

Every check is a function `check(root)` that yields breaches. `root` is a directory shaped like this repository;
a test hands in a small one of its own. What a check needs and does not find (no `docs/`, say) is not a breach.
"""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple


class Breach(NamedTuple):
    """One thing that is wrong. `path` is relative to the root; the message says what to do about it."""

    path: str
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.message}"


class Module(NamedTuple):
    """One Python file. `path` is relative to the root."""

    path: str
    tree: ast.Module


def files(root: Path) -> list[str]:
    """Every file that belongs to the repository, relative to `root`, in order: what git would commit.

    Without git (a source archive, or a checkout that git refuses to read for its owner) every file is taken that
    is in no hidden directory, no virtual environment and no directory of built or recorded things.
    """
    found = _files_of_git(root) if (root / ".git").exists() else None
    if found is None:
        found = (path.relative_to(root).as_posix() for path in _walk(root))
    return sorted(found)


def modules(root: Path, under: str) -> Iterator[Module]:
    """Every Python file below the directory `under`, parsed, in order. Raises SyntaxError."""
    for path in sorted((root / under).rglob("*.py")):
        yield module(root, path.relative_to(root).as_posix())


def module(root: Path, path: str) -> Module:
    """One Python file, parsed. Raises SyntaxError, with the path as its file name."""
    return Module(path, ast.parse((root / path).read_text("utf-8"), filename=path))


def _files_of_git(root: Path) -> Iterator[str] | None:
    command = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    names = listed.decode("utf-8", "surrogateescape").split("\0")
    return (name for name in names if name and (root / name).is_file())


def _walk(directory: Path) -> Iterator[Path]:
    for path in directory.iterdir():
        if path.is_symlink():
            continue
        if path.is_file():
            yield path
        elif path.is_dir() and not _is_left_out(path):
            yield from _walk(path)


def _is_left_out(directory: Path) -> bool:
    name = directory.name
    return (
        name.startswith(".")
        or name in {"__pycache__", "build", "dist", "var"}
        or name.endswith(".egg-info")
        or (directory / "pyvenv.cfg").exists()
    )
