"""`python -m bench`: run Doorward and its peers in interleaved rounds, print the tables, keep the results.

Needs nothing but Doorward's own needs and a C compiler. README.md says what the figures mean and how far they may
be trusted.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from bench import report
from bench.figures import DEFAULT_GROUPS, GROUPS
from bench.load import SOURCE_ADDRESSES, Generator, LoadError, build
from bench.peer import REPOSITORY, Installed, find
from bench.peers import DEFAULT, PEERS
from bench.rounds import Bench, Plan

RESULTS = Path(__file__).resolve().parent / "results"


def _name(plan: Plan) -> str:
    figures = "all" if plan.groups == DEFAULT_GROUPS else "+".join(plan.groups)
    return f"{datetime.now(tz=UTC):%Y-%m-%d}-{'quick-' if plan.quick else ''}{figures}"


def _method(plan: Plan) -> str:
    return (
        f"{plan.rounds} interleaved rounds over loopback, {plan.seconds:g} s a run of which the last "
        "four fifths count, after a run of every proxy to warm it; medians over rounds, ratios taken within a "
        "round. CPU is user and system time of the proxy's processes in the measured window. Load generator and "
        f"server are one thread each, on the same cores as the proxy. Clients come from {SOURCE_ADDRESSES} addresses."
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
    parser.add_argument(
        "--only", type=_groups, default=DEFAULT_GROUPS, help=f"of {','.join(GROUPS)}; all but single"
    )
    parser.add_argument("--peers", type=_peers, default=DEFAULT, help=f"default {','.join(DEFAULT)}")
    parser.add_argument(
        "--quick", action="store_true", help="two minutes: short runs, two rounds, fewer idle tunnels"
    )
    parser.add_argument("--rounds", type=int, help="how often each run is made")
    parser.add_argument("--seconds", type=float, help="length of one run")
    parser.add_argument("--program", type=_program, action="append", default=[], metavar="NAME=PATH")
    parser.add_argument("--output", type=Path, default=RESULTS, help="where results are kept")
    parser.add_argument("--no-save", action="store_true", help="tables on the terminal only")
    given = parser.parse_args(words)
    plan = Plan(
        groups=given.only,
        peers=given.peers,
        rounds=given.rounds or (2 if given.quick else 5),
        seconds=given.seconds or (0.4 if given.quick else 1.2),
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
        _say(f"left out {name}: {reason}")
    results = report.Results(
        started=f"{datetime.now(tz=UTC):%Y-%m-%d %H:%M} UTC",
        method=_method(plan),
        machine=report.describe_machine(),
        versions={i.peer.name: _version(i) for i in installed},
        how={i.peer.name: i.peer.how for i in installed},
        skipped=skipped,
        groups=plan.groups,
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
        Bench(plan, generator, directory, results, _say).run(installed)
    print(report.tables(results))
    if output is not None:
        _say(f"kept: {report.save(results, output, _name(plan))}")
    return 1 if results.failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
