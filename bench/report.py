"""Results as people read them (Markdown, also on the terminal) and as programs do (JSON).

Knows no machine but the one it describes, and no path of it: results are kept in the repository.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bench.bars import KIB, LARGE_POLICY, SMALL_POLICY, Outcome, number, outcomes
from bench.figures import FIGURES, Figure, Judgement, Memory, Sample, ratio, spread

WITH_LATENCY = ("connections", "messages")  # streams and one-way datagrams have no round trip


@dataclass(frozen=True)
class Results:
    """Everything one invocation learned. What is a mapping is by peer; `processes` says how many after warming."""

    started: str
    method: str
    machine: Mapping[str, str]
    versions: Mapping[str, str]
    how: Mapping[str, str]
    skipped: Mapping[str, str]
    groups: Sequence[str]
    failures: list[str] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    memory: list[Memory] = field(default_factory=list)
    judgements: list[Judgement] = field(default_factory=list)
    relays: dict[str, str] = field(default_factory=dict)
    processes: dict[str, int] = field(default_factory=dict)

    @property
    def outcomes(self) -> list[Outcome]:
        return outcomes(self.groups, self.samples, self.memory, self.judgements)


def _field_of(path: str, key: str) -> str:
    for line in Path(path).read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return "unknown"


def describe_machine() -> dict[str, str]:
    memory_kib = int(_field_of("/proc/meminfo", "MemTotal").split()[0])
    release = platform.freedesktop_os_release()
    return {
        "processor": f"{os.cpu_count()} cores, {_field_of('/proc/cpuinfo', 'model name')}",
        "memory": f"{memory_kib / KIB / KIB:.0f} GiB",
        "system": f"{release.get('PRETTY_NAME', 'Linux')}, kernel {platform.release()}",
        "python": platform.python_version(),
    }


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns also line up on a terminal; the first is text, the rest numbers."""
    widths = [max(len(row[i]) for row in [heads, *rows]) for i in range(len(heads))]

    def line(cells: Sequence[str]) -> str:
        padded = [c.rjust(w) if i else c.ljust(w) for i, (c, w) in enumerate(zip(cells, widths, strict=True))]
        return f"| {' | '.join(padded)} |"

    rule = [("-" * (w - 1) + ":") if i else "-" * w for i, w in enumerate(widths)]
    return "\n".join([line(heads), line(rule), *map(line, rows)])


def _row(figure: Figure, samples: Sequence[Sample], peer: str) -> list[str]:
    own = [s for s in samples if s.peer == peer]
    rate = spread([s.rate for s in own])
    cpu = spread([s.cpu for s in own])
    to_direct = ratio(samples, peer, "direct")
    cells = [
        peer,
        number(rate.median),
        f"{number(rate.low)} - {number(rate.high)}",
        "" if to_direct is None else f"{to_direct:.2f}",
    ]
    if peer == "direct":
        cells += ["", "", ""]
    else:
        busy = spread([s.proxy_busy for s in own]).median
        cells += [number(cpu.median), f"{number(cpu.low)} - {number(cpu.high)}", f"{busy:.2f}"]
    driver = spread([s.window.driver_busy for s in own]).median
    server = spread([s.window.server_busy for s in own]).median
    cells += [f"{driver:.2f} + {server:.2f}", f"{spread([s.window.others_busy for s in own]).median:.2f}"]
    if figure.group in WITH_LATENCY:
        cells.append(f"{spread([s.window.p50_us for s in own]).median / 1000:.1f}")
        cells.append(f"{spread([s.window.p99_us for s in own]).median / 1000:.1f}")
    cells.append(str(sum(s.window.errors for s in own)))
    return cells


def _figure(figure: Figure, samples: Sequence[Sample]) -> str:
    heads = ["peer", figure.rate_unit, "min - max", "of direct", figure.cpu_unit, "min - max", "proxy cores"]
    heads += ["load cores", "others"]
    heads += ["p50 ms", "p99 ms"] if figure.group in WITH_LATENCY else []
    heads.append("errors")
    rows = [_row(figure, samples, peer) for peer in dict.fromkeys(s.peer for s in samples)]
    return f"### {figure.title}\n\n{_table(heads, rows)}\n"


def _memory(memory: Sequence[Memory]) -> str:
    rows = [
        [m.peer, "", "", "yes"]
        if m.failed
        else [m.peer, f"{m.bytes_per_tunnel / KIB:.1f}", f"{m.empty_bytes / KIB / KIB:.1f}", ""]
        for m in memory
    ]
    heads = ["peer", "KiB/connection", "MiB when empty", "failed"]
    title = f"Memory, {memory[0].tunnels:,} idle tunnels (PSS of the proxy's processes)"
    return f"### {title}\n\n{_table(heads, rows)}\n"


def _judgements(judgements: Sequence[Judgement]) -> str:
    heads = ["case", f"µs, {SMALL_POLICY:,} rules", f"µs, {LARGE_POLICY:,} rules", "factor"]
    rows = [[j.case, f"{j.small_us:.2f}", f"{j.large_us:.2f}", f"{j.ratio:.2f}"] for j in judgements]
    return f"### Judgements (the best of several rounds)\n\n{_table(heads, rows)}\n"


def _bars(found: Sequence[Outcome]) -> str:
    heads = ["figure", "ours", "theirs", "bar", "factor reached", ""]
    rows = [
        [o.figure, o.ours, o.theirs, o.bar, "" if o.factor is None else f"{o.factor:.2f}", o.verdict]
        for o in found
    ]
    met = sum(o.verdict == "met" for o in found)
    return f"### Bars: {met} of {len(found)} met\n\n{_table(heads, rows)}\n"


def tables(results: Results) -> str:
    """The figures alone, as Markdown; the bars come last."""
    parts = []
    for figure in FIGURES:
        samples = [s for s in results.samples if s.figure == figure.name]
        if samples:
            parts.append(_figure(figure, samples))
    if results.memory:
        parts.append(_memory(results.memory))
    if results.judgements:
        parts.append(_judgements(results.judgements))
    if results.outcomes:
        parts.append(_bars(results.outcomes))
    return "\n".join(parts)


def _list(items: Mapping[str, str]) -> str:
    return "".join(f"- {name}: {text}\n" for name, text in items.items())


def _peer(results: Results, peer: str) -> str:
    facts = [results.versions[peer]]
    if peer in results.relays:
        facts.append(f"{results.relays[peer]} relay")
    if peer in results.processes:
        facts.append(f"processes: {results.processes[peer]}")
    return f"- {peer} ({', '.join(facts)}): {results.how[peer]}\n"


def markdown(results: Results) -> str:
    """The whole page: what was measured on what and how, then the figures, then what is missing."""
    page = f"# Bench, {results.started}\n\n{results.method}\n\n"
    page += f"## Machine\n\n{_list(results.machine)}\n## Peers\n\n"
    page += "".join(_peer(results, peer) for peer in results.versions)
    page += _list({f"{peer}, left out": reason for peer, reason in results.skipped.items()})
    page += f"\n## Figures\n\n{tables(results)}"
    if results.failures:
        page += "\n## Failed\n\n" + "".join(f"- {failure}\n" for failure in results.failures)
    return page


def save(results: Results, directory: Path, name: str) -> Path:
    """Write NAME.md and NAME.json, beside what is there already: a second run of a day gets a number."""
    directory.mkdir(parents=True, exist_ok=True)
    number, stem = 1, name
    while (directory / f"{stem}.md").exists():
        number += 1
        stem = f"{name}-{number}"
    page = directory / f"{stem}.md"
    page.write_text(markdown(results))
    kept = asdict(results) | {"bars": [asdict(outcome) for outcome in results.outcomes]}
    (directory / f"{stem}.json").write_text(json.dumps(kept, ensure_ascii=False) + "\n")
    return page
