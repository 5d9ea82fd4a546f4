"""One proxy as the bench knows it: how it is found on this machine, and what it is asked to do.

Says nothing about any proxy in particular; those stand in peers.py.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.figures import MEMORY
from bench.load import Via

REPOSITORY = Path(__file__).resolve().parent.parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "doorward-bench"
SYSTEM_PATH = ("/usr/sbin", "/sbin")  # where Debian keeps servers, and an ordinary user's PATH does not look

STREAMS = frozenset({"bulk", "single", "connections", "messages", MEMORY})
WITH_DATAGRAMS = STREAMS | {"datagrams"}


@dataclass(frozen=True)
class Place:
    """Where one proxy runs. `directory` is its own and holds all its files; it listens on `port`.

    `server_port` is where the load server will be: for proxies with one target.
    """

    directory: Path
    port: int
    server_port: int


@dataclass(frozen=True)
class Peer:
    """One row of the table.

    `program` is looked up as `find` says. `prepare` writes the configuration and returns the arguments that
    start the proxy in the foreground. `how` is the configuration in words, for the results. `takes_part_in`
    holds groups of figures. `needs` is a file without which it cannot run, and what to install for it.
    """

    name: str
    via: Via
    how: str
    program: str
    version_arguments: tuple[str, ...]
    prepare: Callable[[Place], list[str]]
    takes_part_in: frozenset[str] = STREAMS
    needs: tuple[str, str] | None = None


@dataclass(frozen=True)
class Installed:
    """A peer whose program was found, with the version it states."""

    peer: Peer
    program: str
    version: str


def environment() -> dict[str, str]:
    """Ours, with the tree under test first on the import path and no proxy settings to mislead anyone."""
    kept = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    return kept | {"PYTHONPATH": str(REPOSITORY / "src")}


def locate(program: str, given: Mapping[str, str]) -> str | None:
    """What `--program` says, else a virtual environment in the bench's cache, else PATH and where servers are."""
    if program in given:
        return shutil.which(given[program])
    cached = (str(found) for found in sorted(CACHE.glob(f"*/bin/{program}")) if os.access(found, os.X_OK))
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), *SYSTEM_PATH))
    return next(cached, None) or shutil.which(program, path=path)


def find(peer: Peer, given: Mapping[str, str]) -> Installed | str:
    """The peer as it is installed here, or the reason why it must be left out, in one line."""
    program = locate(peer.program, given)
    if program is None:
        return f"{peer.program} is not installed (README.md says how, or give --program {peer.program}=PATH)"
    if peer.needs is not None and not Path(peer.needs[0]).exists():
        return f"{peer.needs[1]} is not installed ({peer.needs[0]})"
    if not peer.version_arguments:
        return Installed(peer, program, _package(program))
    asked = _ask([program, *peer.version_arguments])
    # nginx tells its version where others tell their errors.
    words = (asked.stdout or asked.stderr).strip().splitlines() or ["it says nothing"]
    if asked.returncode != 0:
        return f"{' '.join(peer.version_arguments)} fails: {words[-1]}"
    return Installed(peer, program, re.sub(r"\s+", " ", words[0]).strip())


def _package(program: str) -> str:
    """The Debian package of a program that does not tell its version."""
    if shutil.which("dpkg-query") is None:
        return "version unknown"
    owner = _ask(["dpkg-query", "--search", program]).stdout.partition(":")[0]
    told = _ask(["dpkg-query", "--show", owner]) if owner else None
    return " ".join(told.stdout.split()) if told and told.returncode == 0 else "version unknown"


def _ask(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=30, env=environment())
