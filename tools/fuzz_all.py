"""Runs every fuzzer in fuzz/ in turn, each in a process of its own: `python -m tools.fuzz_all --seconds 5`.

The seed is fixed, so that a run in CI says something about the change and not about its luck; `--seed` gives
another one. A fuzzer is a program fuzz/fuzz_*.py that takes --seconds and --seed and ends with status 0 if every
promise held. One line for each; what a failed one said stands below its line. Exit status 1 if one failed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

REPOSITORY: Final = Path(__file__).resolve().parent.parent
SEED: Final = 1
GRACE_S: Final = 60.0  # to start, and to finish the input in hand, on a busy machine


class Outcome(NamedTuple):
    """How one fuzzer fared. `said` is the last line of a good one, everything of a bad one."""

    name: str
    is_good: bool
    said: str


def fuzzers(root: Path) -> list[Path]:
    """The fuzzers, by name."""
    return sorted((root / "fuzz").glob("fuzz_*.py"))


def run(fuzzer: Path, root: Path, *, seconds: float, seed: int, grace_s: float = GRACE_S) -> Outcome:
    """Run one for `seconds`; it is killed, and has failed, when it is not over `grace_s` later."""
    command = [sys.executable, str(fuzzer), "--seconds", str(seconds), "--seed", str(seed)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root / "src"), str(root)])}
    try:
        done = subprocess.run(
            command,
            cwd=root,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=seconds + grace_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Outcome(
            fuzzer.stem, False, f"not over after {seconds + grace_s:.0f} s: an input makes it hang"
        )
    lines = done.stdout.strip().splitlines() or ["said nothing"]
    if done.returncode == 0:
        return Outcome(fuzzer.stem, True, lines[-1])
    return Outcome(fuzzer.stem, False, "\n".join([f"exit status {done.returncode}", *lines]))


def main(arguments: Sequence[str]) -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tools.fuzz_all", description="Run every fuzzer in turn.")
    parser.add_argument("--seconds", type=float, default=5.0, help="for each fuzzer (5)")
    parser.add_argument("--seed", type=int, default=SEED, help=f"the same for each ({SEED})")
    options = parser.parse_args(arguments)
    failed = 0
    found = fuzzers(REPOSITORY)
    began = time.monotonic()
    for fuzzer in found:
        outcome = run(fuzzer, REPOSITORY, seconds=options.seconds, seed=options.seed)
        failed += not outcome.is_good
        print(f"{'ok    ' if outcome.is_good else 'FAILED'} {outcome.name}: {outcome.said}", flush=True)
    print(f"{len(found) - failed} of {len(found)} fuzzers found nothing, {time.monotonic() - began:.0f} s")
    return 1 if failed or not found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
