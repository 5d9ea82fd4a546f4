"""The load generator seen from Python: compile it once, run it, and frame its measured window.

It knows how to talk to load.c and nothing about the proxies behind it.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bench.processes import machine_cpu_seconds

Via = Literal["direct", "forward", "socks5", "connect"]
Mode = Literal["connections", "messages", "download", "upload", "datagrams"]

SOURCES = ("load.c", "load_datagrams.c", "load_server.c")
SOURCE_ADDRESSES = 16  # as in load.h
END_S = 1.0  # what it may take to end when it is told to
GRACE_S = 15.0  # what a run may take beyond its own time before it is ended


class LoadError(Exception):
    """The generator could not do its work; the message says why, in its own words where it had any."""


@dataclass(frozen=True)
class Target:
    """Where the load goes: a proxy on `port`, asked in the way `via`. `server_port` 0 lets the kernel choose."""

    via: Via
    port: int = 0
    server_port: int = 0


@dataclass(frozen=True)
class Window:
    """What happened in the measured part of one run. `operations` are bytes in bulk, echoes otherwise.

    `proxy_cpu_s` is what the caller's meter said at the end, less what it said at the beginning. Busy shares
    are parts of one core, over the whole run; `others_busy` is what nobody in the bench can account for.
    """

    operations: int
    seconds: float
    proxy_cpu_s: float
    p50_us: int
    p99_us: int
    driver_busy: float
    server_busy: float
    others_busy: float
    errors: int
    first_error: str


def build(directory: Path) -> Path:
    """Compile the generator into `directory`, return the program. Raises LoadError without a C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise LoadError("no C compiler (cc): the load generator is a C program")
    here = Path(__file__).resolve().parent
    program = directory / "load"
    sources = [str(here / name) for name in SOURCES]
    done = subprocess.run(
        [compiler, "-O2", "-Wall", "-Wextra", "-o", str(program), *sources],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    if done.returncode != 0:
        raise LoadError(done.stderr)
    return program


@dataclass(frozen=True)
class Generator:
    """The compiled program, and the runs it can do."""

    program: Path

    @contextmanager
    def _start(
        self, target: Target, mode: str, count: int, seconds: float
    ) -> Iterator[subprocess.Popen[str]]:
        words = (target.port, target.via, target.server_port, mode, count, seconds)
        command = [str(self.program), *map(str, words)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        overdue = threading.Timer(seconds + GRACE_S, process.kill)
        overdue.start()
        try:
            yield process
        finally:
            overdue.cancel()
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.close()  # ends what holds idle tunnels; everything else has ended, or hangs
            try:
                process.wait(END_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()

    def run(
        self, target: Target, mode: Mode, parallel: int, seconds: float, meter: Callable[[], float]
    ) -> Window:
        """One run of `seconds`, of which the last four fifths count.

        `meter` says what CPU time the proxy has had so far, in seconds; it is read at both ends of the
        window. Raises LoadError if nothing came through.
        """
        with self._start(target, mode, parallel, seconds) as process:
            assert process.stdout is not None
            _expect(process.stdout.readline(), "begin")
            before, machine_before = meter(), machine_cpu_seconds()
            _expect(process.stdout.readline(), "end")
            cpu_s, machine_s = meter() - before, machine_cpu_seconds() - machine_before
            told = _report(process.stdout.readline())
        if not told["window_operations"]:
            raise LoadError(f"nothing came through: {told['first_error'] or 'no answer in time'}")
        driver_busy, server_busy = (told[f"{side}_cpu_s"] / told["run_s"] for side in ("driver", "server"))
        others_busy = (machine_s - cpu_s) / told["window_s"] - driver_busy - server_busy
        return Window(
            operations=told["window_operations"],
            seconds=told["window_s"],
            proxy_cpu_s=cpu_s,
            p50_us=told["p50_us"],
            p99_us=told["p99_us"],
            driver_busy=driver_busy,
            server_busy=server_busy,
            others_busy=max(0.0, others_busy),
            errors=told["errors"],
            first_error=told["first_error"],
        )

    @contextmanager
    def hold_idle(self, target: Target, tunnels: int, seconds: float) -> Iterator[None]:
        """Hold `tunnels` open tunnels while the body runs.

        Raises LoadError unless all of them stand within `seconds`.
        """
        with self._start(target, "idle", tunnels, seconds) as process:
            assert process.stdout is not None
            told = _report(process.stdout.readline())
            if told["open"] != tunnels:
                raise LoadError(f"only {told['open']} of {tunnels} tunnels stand: {told['first_error']}")
            yield


def _expect(line: str, word: str) -> None:
    if line.strip() != word:
        raise LoadError(f"the generator said {line.strip()!r} where {word!r} was due")


def _report(line: str) -> dict[str, Any]:
    if not line:
        raise LoadError("the generator ended without a report")
    report: dict[str, Any] = json.loads(line)
    return report
