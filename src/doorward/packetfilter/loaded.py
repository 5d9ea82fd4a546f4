"""What is loaded, and what a layout would be once it is, in the words that nft lists: so that both can be compared.

The layout is written down by nft itself, in a network namespace that is nobody's and gone at once. What comes and goes
is left out: openings, counted packets, handles.
"""

from __future__ import annotations

import re
import subprocess
from typing import Final

from doorward.packetfilter.layout import Layout
from doorward.packetfilter.model import FAMILY, TABLE
from doorward.packetfilter.nft import PROGRAM
from doorward.packetfilter.text import show

_TIMEOUT_S: Final = 120.0
_COUNTED: Final = re.compile(r"\s*packets \d+ bytes \d+")
_OPEN: Final = re.compile(r"(set open[46] \{[^}]*?)\n\t*elements = \{[^}]*\}")
_LIST: Final = [PROGRAM, "list", "table", FAMILY, TABLE]


class LoadedUnreadable(Exception):
    """It cannot be told what is loaded. The text says why."""


def loaded_lines() -> list[str]:
    """The table that is in force; empty if there is none. Raises LoadedUnreadable."""
    tables = _run([PROGRAM, "list", "tables"], "")
    if f"table {FAMILY} {TABLE}" not in tables.splitlines():
        return []
    return _lines(_run(_LIST, ""))


def wanted_lines(layout: Layout) -> list[str]:
    """The same of a table that is not loaded. Raises LoadedUnreadable."""
    script = 'set -e; "$1" -f -; shift; exec "$@"'
    # Its own user namespace too: nothing but reading what is in force needs rights here.
    return _lines(_run(["unshare", "-Urn", "sh", "-c", script, "sh", PROGRAM, *_LIST], show(layout)))


def _run(command: list[str], text: str) -> str:
    try:
        done = subprocess.run(  # noqa: S603  # fixed programs
            command, input=text, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LoadedUnreadable(f"cannot run {command[0]}: {error}") from None
    if done.returncode:
        why = " ".join(done.stderr.split())[:300]
        raise LoadedUnreadable(f"{command[0]} says: {why or 'nothing'} (reading needs CAP_NET_ADMIN)")
    return done.stdout


def _lines(text: str) -> list[str]:
    return [
        line for line in _OPEN.sub(r"\1", _COUNTED.sub("", text)).expandtabs(4).splitlines() if line.strip()
    ]
