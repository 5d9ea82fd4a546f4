"""The program that a command names: found as execvp(3) finds it, so that what is run is what was looked at."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple


class Executable(NamedTuple):
    """`path` is what execve(2) is to be given; `program` the same from the root, `file` also without symbolic links."""

    path: str
    program: str
    file: str


def find(name: str, directories: Sequence[str]) -> Executable | None:
    """The first that may be run in these directories, or at the path that `name` is; None if there is none."""
    paths = [name] if "/" in name else [os.path.join(directory, name) for directory in directories]  # noqa: PTH118
    for path in paths:
        if name and os.path.isfile(path) and os.access(path, os.X_OK):  # noqa: PTH113
            return Executable(path, _from_root(path), os.path.realpath(path))
    return None


def _from_root(path: str) -> str:
    """As it was written, unless that leads back by a `..`, which is not what it seems behind a symbolic link."""
    if ".." in path.split("/"):
        directory, name = os.path.split(path)
        return os.path.join(os.path.realpath(directory), name)  # noqa: PTH118
    return os.path.abspath(path)  # noqa: PTH100
