"""The measuring itself: proxies started, rounds in which they take turns, then memory, then judgements.

A figure that fails is noted in the results and the rest goes on.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench.bars import LARGE_POLICY, SMALL_POLICY
from bench.figures import FIGURES, JUDGEMENTS, MEMORY, Figure, Judgement, Memory, sample
from bench.load import SOURCE_ADDRESSES, Generator, LoadError, Target
from bench.peer import REPOSITORY, Installed, environment
from bench.peers import DIRECT_TAKES_PART_IN
from bench.report import Results
from bench.running import PeerError, Running, running

PAUSE_S = 0.2  # between runs, so that a proxy's tearing down does not fall into its neighbour's time
WARMING_S = 0.5
TUNNELS_TIMEOUT_S = 30.0
SETTLE_S = 0.5  # between two looks at memory
SETTLE_TIMEOUT_S = 5.0
SETTLED_BYTES = 128 * 1024  # what two looks may differ by
JUDGEMENTS_TIMEOUT_S = 120.0
RELAY_LINE = re.compile(r"\s*relay\s+\w")


@dataclass(frozen=True)
class Plan:
    """What one invocation does. `seconds` is one run, `rounds` how often each run is made."""

    groups: tuple[str, ...]
    peers: tuple[str, ...]
    rounds: int
    seconds: float
    tunnels: int
    quick: bool
    programs: Mapping[str, str]


@dataclass(frozen=True)
class _Standing:
    """A proxy that is up; `running` is None for the direct way."""

    name: str
    takes_part_in: frozenset[str]
    running: Running | None

    @property
    def target(self) -> Target:
        return self.running.target if self.running is not None else Target("direct")

    def cpu_seconds(self) -> float:
        return self.running.cpu_seconds() if self.running is not None else 0.0


@dataclass(frozen=True)
class Bench:
    """One invocation at work: the generator, a temporary directory, and the results so far."""

    plan: Plan
    generator: Generator
    directory: Path
    results: Results
    say: Callable[[str], None]

    def run(self, installed: Sequence[Installed]) -> None:
        figures = [figure for figure in FIGURES if figure.group in self.plan.groups]
        if figures:
            self._rounds(figures, installed)
        if MEMORY in self.plan.groups:
            for one in installed:
                if MEMORY in one.peer.takes_part_in:
                    self._memory(one)
        if JUDGEMENTS in self.plan.groups:
            self._judgements()

    def _fail(self, peer: str, what: str, error: Exception) -> None:
        text = f"{peer}, {what}: {error}".replace(str(self.directory), "…")
        self.results.failures.append(text)
        self.say(f"failed: {text}")

    def _rounds(self, figures: Sequence[Figure], installed: Sequence[Installed]) -> None:
        with ExitStack() as stack:
            standing = self._start(stack, figures, installed)
            for one in standing:
                self._warm(one)
            for number in range(1, self.plan.rounds + 1):
                self.say(f"round {number} of {self.plan.rounds}")
                # Another one begins in every round, so that nobody always follows the same neighbour.
                first = number % len(standing) if standing else 0
                for figure in figures:
                    self._in_turn(figure, number, standing[first:] + standing[:first])

    def _start(
        self, stack: ExitStack, figures: Sequence[Figure], installed: Sequence[Installed]
    ) -> list[_Standing]:
        wanted = {figure.group for figure in figures}
        standing = []
        if "direct" in self.plan.peers:
            standing.append(_Standing("direct", DIRECT_TAKES_PART_IN, None))
        for one in installed:
            peer = one.peer
            if not wanted & peer.takes_part_in:
                continue
            try:
                up = stack.enter_context(running(one, self.directory / peer.name))
            except PeerError as error:
                self._fail(peer.name, "start", error)
            else:
                standing.append(_Standing(peer.name, peer.takes_part_in, up))
        return standing

    def _warm(self, one: _Standing) -> None:
        try:
            # Some listen before all of their processes are there; then one tunnel from each address takes its time.
            with self.generator.hold_idle(one.target, SOURCE_ADDRESSES, TUNNELS_TIMEOUT_S):
                pass
            self.generator.run(one.target, "connections", 8, WARMING_S, one.cpu_seconds)
        except LoadError as error:
            self._fail(one.name, "warming", error)
        if one.running is None:
            return
        self.results.processes[one.name] = one.running.processes()
        # Doorward says when it starts which of its relays it took; figures without that could mislead.
        relays = [line.split()[1] for line in one.running.said().splitlines() if RELAY_LINE.match(line)]
        if one.name.startswith("doorward") and relays:
            self.results.relays[one.name] = relays[0]

    def _in_turn(self, figure: Figure, number: int, standing: Sequence[_Standing]) -> None:
        for one in standing:
            if figure.group not in one.takes_part_in:
                continue
            try:
                window = self.generator.run(
                    one.target, figure.mode, figure.parallel, self.plan.seconds, one.cpu_seconds
                )
            except LoadError as error:
                self._fail(one.name, f"{figure.name} in round {number}", error)
            else:
                self.results.samples.append(sample(figure, one.name, number, window))
            time.sleep(PAUSE_S)

    def _memory(self, installed: Installed) -> None:
        """Of a fresh process: one that was busy has memory to spare, and would show too little."""
        name, tunnels = installed.peer.name, self.plan.tunnels
        self.say(f"memory of {name}")
        try:
            with running(installed, self.directory / f"{name}-idle") as proxy:
                # What the first connections load is not the price of the others; one from each address,
                # so that every worker has had one.
                with self.generator.hold_idle(proxy.target, SOURCE_ADDRESSES, TUNNELS_TIMEOUT_S):
                    pass
                empty = _settled_bytes(proxy)
                with self.generator.hold_idle(proxy.target, tunnels, TUNNELS_TIMEOUT_S):
                    full = _settled_bytes(proxy)
        except (PeerError, LoadError) as error:
            self._fail(name, MEMORY, error)
            self.results.memory.append(Memory(name, tunnels, 0, 0, failed=str(error)))
        else:
            self.results.memory.append(Memory(name, tunnels, empty, full))

    def _judgements(self) -> None:
        """In a process of its own: this one has other things in its memory."""
        self.say("judgements")
        command = [sys.executable, "-m", "bench.policy", "--json"]
        done = subprocess.run(
            [*command, "--rules", str(SMALL_POLICY), str(LARGE_POLICY)],
            cwd=REPOSITORY,
            env=environment()
            | {"PYTHONPATH": os.pathsep.join([str(REPOSITORY), environment()["PYTHONPATH"]])},
            capture_output=True,
            text=True,
            check=False,
            timeout=JUDGEMENTS_TIMEOUT_S,
        )
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
            self._fail("doorward", JUDGEMENTS, LoadError(last))
            return
        for case, (small_us, large_us) in json.loads(done.stdout).items():
            self.results.judgements.append(Judgement(case, small_us, large_us))


def _settled_bytes(proxy: Running) -> int:
    """The proxy's memory once it stays the same, or what it is when that takes too long."""
    deadline = time.monotonic() + SETTLE_TIMEOUT_S
    before = -SETTLED_BYTES
    time.sleep(SETTLE_S)
    while abs((now := proxy.pss_bytes()) - before) > SETTLED_BYTES and time.monotonic() < deadline:
        before = now
        time.sleep(SETTLE_S)
    return now
