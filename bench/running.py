"""A proxy at work: started in a directory of its own, known to be ready, metered, and ended with all it started."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.load import Target
from bench.peer import Installed, Place, environment
from bench.processes import cpu_seconds, pss_bytes, tree

READY_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 5.0
LAST_WORDS_MAX = 300
# Below what Linux deals out to outgoing connections, so that none of them takes the port while its owner is away.
PORTS = range(10_000, 32_000)


class PeerError(Exception):
    """A proxy did not start, or did not stay; the message holds the end of what it printed."""


@dataclass(frozen=True)
class Running:
    """A proxy that accepts connections, with a meter for what it costs. `output` is where it prints."""

    target: Target
    root: int
    output: Path

    def cpu_seconds(self) -> float:
        return cpu_seconds(self.root)

    def said(self) -> str:
        """What it printed so far."""
        return _read(self.output)

    def processes(self) -> int:
        return len(tree(self.root))

    def pss_bytes(self) -> int:
        return pss_bytes(self.root)


@contextmanager
def running(installed: Installed, directory: Path) -> Iterator[Running]:
    """Start the proxy with its files in `directory`, which is made; end it afterwards.

    Raises PeerError if it does not listen within `READY_TIMEOUT_S`.
    """
    directory.mkdir(parents=True)
    peer = installed.peer
    place = Place(directory, free_port(), free_port())
    output = directory / "output.txt"
    command = [installed.program, *peer.prepare(place)]
    with output.open("wb") as sink:
        process = subprocess.Popen(
            command,
            cwd=directory,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a group of its own, so that its workers can be ended with it
        )
    try:
        _wait_until_ready(process, place.port, output)
        server_port = place.server_port if peer.via == "forward" else 0
        yield Running(Target(peer.via, place.port, server_port), process.pid, output)
    finally:
        _stop(process)


def free_port() -> int:
    """A port of `PORTS` that nobody has at this moment."""
    while True:
        port = random.choice(PORTS)  # noqa: S311 - not a secret
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue  # somebody's: another one
            return port


def _read(output: Path) -> str:
    return output.read_text(errors="replace")


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _wait_until_ready(process: subprocess.Popen[bytes], port: int, output: Path) -> None:
    deadline = time.monotonic() + READY_TIMEOUT_S
    while not _accepts(port):
        late = time.monotonic() > deadline
        if late or process.poll() is not None:
            what = "does not listen in time" if late else f"ended with status {process.returncode}"
            raise PeerError(f"{what}: {' / '.join(_read(output).splitlines()[-2:])[-LAST_WORDS_MAX:]}")
        time.sleep(0.05)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ask the proxy to end; what is left of the group that it was started in is killed."""
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        pass  # the group is killed below
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass  # nothing is left: the usual case
    process.wait()
