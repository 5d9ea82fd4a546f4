"""What a tree of processes has cost so far: CPU time and memory, read from /proc (proc(5)).

A process that ends between two looks is counted in its parent's `cutime` and `cstime` once it was waited for,
so the sum over the tree does not lose a worker that came and went.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


class Stat(NamedTuple):
    """What one line of /proc/PID/stat tells; `cpu_ticks` includes children that were waited for."""

    parent: int
    cpu_ticks: int


def parse_stat(line: str) -> Stat:
    """Read one stat line; the name in parentheses may itself hold spaces and parentheses."""
    fields = line.rpartition(")")[2].split()
    return Stat(parent=int(fields[1]), cpu_ticks=sum(int(field) for field in fields[11:15]))


def _every_process() -> dict[int, Stat]:
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                found[int(entry.name)] = parse_stat((entry / "stat").read_text())
            except (FileNotFoundError, ProcessLookupError):
                continue  # it ended while we looked
    return found


def tree(root: int) -> dict[int, Stat]:
    """The process `root` and everything below it; empty when it is gone."""
    everything = _every_process()
    members = {root: everything[root]} if root in everything else {}
    grew = True
    while grew:
        below = {
            pid: stat for pid, stat in everything.items() if stat.parent in members and pid not in members
        }
        members |= below
        grew = bool(below)
    return members


def cpu_seconds(root: int) -> float:
    """User and system time of the tree, in seconds, to a clock tick (10 ms) for each process."""
    return sum(stat.cpu_ticks for stat in tree(root).values()) / TICKS_PER_SECOND


def machine_cpu_seconds() -> float:
    """What all processors together have worked so far, in seconds: neither idle nor waiting for a device."""
    user, nice, system, _idle, _waiting, *interrupts = (
        Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    )
    # Time stolen by the host counts too: it was not ours. Guest time stands in user time already.
    return sum(int(ticks) for ticks in (user, nice, system, *interrupts[:3])) / TICKS_PER_SECOND


def pss_bytes(root: int) -> int:
    """Proportional set size of the tree: memory shared by several processes counts once between them.

    Kernel memory (socket buffers) is not part of it. Needs the right to read the processes' smaps.
    """
    total = 0
    for pid in tree(root):
        try:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        total += sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")) * 1024
    return total
