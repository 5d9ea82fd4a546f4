"""`python -m bench`: run Doorward and its peers in interleaved rounds, print the tables, keep the results.

Standard library only, and a C compiler. README.md says what the figures mean and how far they may be trusted.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from bench import report
from bench.figures import FIGURES, GROUPS, MEMORY, Memory, sample
from bench.load import Generator, LoadError, Via, build
from bench.peers import DATAGRAM_PEERS, PEERS, REPOSITORY, Installed, PeerError, Running, find, running

DEFAULT_PEERS = "direct,dante,mitmproxy,mitmproxy-unread,doorward"
RESULTS = Path(__file__).resolve().parent / "results"
PAUSE_S = 0.2  # between runs, so that a proxy's tearing down does not fall into its neighbour's time
TUNNELS_TIMEOUT_S = 30.0
SETTLE_S = 0.5  # before memory is read


@dataclass(frozen=True)
class Plan:
    """What this invocation does. `seconds` is one run, `rounds` how often each run is made."""

    groups: tuple[str, ...]
    peers: tuple[str, ...]
    rounds: int
    seconds: float
    tunnels: int
    quick: bool
    programs: Mapping[str, str]

    @property
    def name(self) -> str:
        figures = "all" if self.groups == GROUPS else "+".join(self.groups)
        return f"{datetime.now(tz=UTC):%Y-%m-%d}-{'quick-' if self.quick else ''}{figures}"

    @property
    def method(self) -> str:
        return (
            f"{self.rounds} interleaved rounds over loopback, {self.seconds:g} s a run of which the last "
            "four fifths count; medians over rounds, ratios taken within a round. CPU is user and system time of "
            "the proxy's processes in the measured window. Load generator and server are one thread each, "
            "on the same cores as the proxy."
        )


def _words(text: str, known: Sequence[str]) -> tuple[str, ...]:
    words = tuple(dict.fromkeys(text.split(",")))
    unknown = [word for word in words if word not in known]
    if unknown:
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; there are {', '.join(known)}")
    return words


def _groups(text: str) -> tuple[str, ...]:
    return _words(text, GROUPS)


def _peers(text: str) -> tuple[str, ...]:
    return _words(text, ("direct", *PEERS))


def _program(text: str) -> tuple[str, str]:
    name, found, path = text.partition("=")
    if not found:
        raise argparse.ArgumentTypeError("NAME=PATH is wanted")
    return name, path


def _arguments(words: Sequence[str]) -> tuple[Plan, Path | None]:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--only", type=_groups, default=GROUPS, help=f"of {','.join(GROUPS)}")
    parser.add_argument(
        "--peers", type=_peers, default=_peers(DEFAULT_PEERS), help=f"default {DEFAULT_PEERS}"
    )
    parser.add_argument("--quick", action="store_true", help="under a minute: short runs, two rounds")
    parser.add_argument("--rounds", type=int, help="how often each run is made")
    parser.add_argument("--seconds", type=float, help="length of one run")
    parser.add_argument("--program", type=_program, action="append", default=[], metavar="NAME=PATH")
    parser.add_argument("--output", type=Path, default=RESULTS, help="where results are kept")
    parser.add_argument("--no-save", action="store_true", help="tables on the terminal only")
    given = parser.parse_args(words)
    plan = Plan(
        groups=given.only,
        peers=given.peers,
        rounds=given.rounds or (2 if given.quick else 4),
        seconds=given.seconds or (0.6 if given.quick else 1.5),
        tunnels=500 if given.quick else 2000,
        quick=given.quick,
        programs=dict(given.program),
    )
    return plan, None if given.no_save else given.output


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _begin(plan: Plan) -> tuple[report.Results, list[Installed]]:
    """Look for the peers; what is missing is named and left out."""
    found = {name: find(PEERS[name], plan.programs) for name in plan.peers if name != "direct"}
    installed = [peer for peer in found.values() if isinstance(peer, Installed)]
    skipped = {name: reason for name, reason in found.items() if isinstance(reason, str)}
    for name, reason in skipped.items():
        _say(f"skipped {name}: {reason}")
    results = report.Results(
        started=f"{datetime.now(tz=UTC):%Y-%m-%d %H:%M} UTC",
        method=plan.method,
        machine=report.describe_machine(),
        versions={i.peer.name: _version(i) for i in installed},
        how={i.peer.name: i.peer.how for i in installed},
        skipped=skipped,
    )
    return results, installed


def _version(installed: Installed) -> str:
    if not installed.peer.name.startswith("doorward"):
        return installed.version
    commit = subprocess.run(
        ["git", "-C", str(REPOSITORY), "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        check=False,
    )
    return f"{installed.version}, commit {commit.stdout.strip() or 'unknown'}"


@dataclass(frozen=True)
class _Bench:
    """One invocation at work: the generator, a temporary directory, and the results so far."""

    plan: Plan
    generator: Generator
    directory: Path
    results: report.Results

    def fail(self, peer: str, what: str, error: Exception) -> None:
        text = f"{peer}, {what}: {error}".replace(str(self.directory), "…")
        self.results.failures.append(text)
        _say(f"failed: {text}")

    def rounds(self, installed: Sequence[Installed]) -> None:
        with ExitStack() as stack:
            standing: dict[str, tuple[Via, Running]] = {}
            if "direct" in self.plan.peers:
                standing["direct"] = ("direct", Running(0, os.getpid()))
            for one in installed:
                try:
                    up = stack.enter_context(running(one, self.directory / one.peer.name))
                    standing[one.peer.name] = (one.peer.via, up)
                except PeerError as error:
                    self.fail(one.peer.name, "start", error)
            for round_number in range(1, self.plan.rounds + 1):
                _say(f"round {round_number} of {self.plan.rounds}")
                self.one_round(
                    round_number, [(name, *standing[name]) for name in self.plan.peers if name in standing]
                )

    def one_round(self, round_number: int, standing: Sequence[tuple[str, Via, Running]]) -> None:
        seconds = self.plan.seconds
        for figure in (f for f in FIGURES if f.group in self.plan.groups):
            for name, via, proxy in standing:
                if figure.mode == "datagrams" and name not in DATAGRAM_PEERS:
                    continue
                meter = proxy.cpu_seconds if via != "direct" else lambda: 0.0
                try:
                    window = self.generator.run(via, proxy.port, figure.mode, figure.parallel, seconds, meter)
                except LoadError as error:
                    self.fail(name, f"{figure.name} in round {round_number}", error)
                else:
                    self.results.samples.append(sample(figure, name, round_number, window))
                time.sleep(PAUSE_S)

    def memory(self, installed: Installed) -> None:
        """Of a fresh process: one that was busy has memory to spare, and would show too little."""
        name, tunnels = installed.peer.name, self.plan.tunnels
        with running(installed, self.directory / f"{name}-idle") as proxy:
            with self.generator.hold_idle(installed.peer.via, proxy.port, 1, TUNNELS_TIMEOUT_S):
                pass  # what the first connection loads is not the price of the others
            time.sleep(SETTLE_S)
            empty = proxy.pss_bytes()
            with self.generator.hold_idle(installed.peer.via, proxy.port, tunnels, TUNNELS_TIMEOUT_S):
                time.sleep(SETTLE_S)
                full = proxy.pss_bytes()
        self.results.memory.append(Memory(name, tunnels, empty, full))


def _run(bench: _Bench, installed: Sequence[Installed]) -> None:
    if bench.plan.groups != (MEMORY,):
        bench.rounds(installed)
    if MEMORY not in bench.plan.groups:
        return
    for one in installed:
        _say(f"memory of {one.peer.name}")
        try:
            bench.memory(one)
        except (PeerError, LoadError) as error:
            bench.fail(one.peer.name, MEMORY, error)
            bench.results.memory.append(Memory(one.peer.name, bench.plan.tunnels, 0, 0, failed=str(error)))


def main(words: Sequence[str]) -> int:
    """Exit status 0 when every figure of every peer that is installed was measured, else 1."""
    plan, output = _arguments(words)
    # Two descriptors a tunnel in a proxy, and many systems begin with 1,024.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    results, installed = _begin(plan)
    with tempfile.TemporaryDirectory(prefix="doorward-bench-") as name:
        directory = Path(name)
        try:
            generator = Generator(build(directory))
        except LoadError as error:
            _say(f"bench: {error}")
            return 1
        _run(_Bench(plan, generator, directory, results), installed)
    print(report.tables(results))
    if output is not None:
        _say(f"kept: {report.save(results, output, plan.name)}")
    return 1 if results.failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
