"""Who is who in a captured program's user namespace: itself, as it was outside.

An ordinary user may map itself and nobody else. Who may map others (root) maps all that its own namespace has, so
that what it runs can still become other users. See user_namespaces(7).
"""

from __future__ import annotations

import os
from pathlib import Path


def write_maps(process: int) -> None:
    """Give the namespace that `process` has just made its users and groups. Raises OSError."""
    directory = Path(f"/proc/{process}")
    try:
        _write(directory / "uid_map", mirrored(Path("/proc/self/uid_map").read_text(encoding="utf-8")))
    except PermissionError:
        _write(directory / "uid_map", f"{os.geteuid()} {os.geteuid()} 1\n")
        _write(directory / "setgroups", "deny")
        _write(directory / "gid_map", f"{os.getegid()} {os.getegid()} 1\n")
        return
    _write(directory / "gid_map", mirrored(Path("/proc/self/gid_map").read_text(encoding="utf-8")))


def mirrored(own: str) -> str:
    """A map under which everybody keeps the number that our own namespace knows them by."""
    lines = (line.split() for line in own.splitlines())
    return "".join(f"{inside} {inside} {count}\n" for inside, _, count in lines)


def _write(path: Path, text: str) -> None:
    """In one system call, as the kernel wants it."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
