"""The rules of this house that no linter knows: `python -m tools.house`, from anywhere.

    layers    a room imports only rooms below it; the pure rooms do no I/O
    pairing   every module has its test, and every test its module
    sizes     files and functions stay small
    words     nothing in the tree that says where or when it was written, and nothing half done
    reasons   every reason that a client or the log is given is explained in docs/reasons.md
    model     every row of docs/object-model.md names tests that prove it, and they exist

Prints each breach as `file:line: what is wrong and what to do`. Exit status 1 if there is one.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tools import layers, object_model, pairing, reasons, sizes, words
from tools.tree import Breach

CHECKS: Final = (layers.check, pairing.check, sizes.check, words.check, reasons.check, object_model.check)
REPOSITORY: Final = Path(__file__).resolve().parent.parent


def breaches(root: Path) -> list[Breach]:
    """What is wrong in the tree at `root`, by file and line. A file that is not Python hides what its check knows."""
    found: set[Breach] = set()
    for check in CHECKS:
        try:
            found.update(check(root))
        except SyntaxError as error:
            found.add(
                Breach(error.filename or "", error.lineno or 1, f"not Python of this version: {error.msg}")
            )
    return sorted(found)


def main(arguments: Sequence[str]) -> int:
    """Check the tree named as the only argument, or this repository. Returns the exit status."""
    if len(arguments) > 1:
        print("usage: python -m tools.house [DIRECTORY]", file=sys.stderr)
        return 2
    found = breaches(Path(arguments[0]) if arguments else REPOSITORY)
    for breach in found:
        print(breach)
    print(f"{len(found)} breaches" if found else "the house is in order")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
