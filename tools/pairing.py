"""Every module has its test file, at the same place: src/doorward/ROOM/…/name.py and tests/ROOM/…/test_name.py.

A long test may be split by what it is about: test_name_logins.py. And the other way round: a test file without its
module tests something that has moved, or was never there. Other files below tests/ (contract suites, helpers,
golden, end to end) are free. The tools of the house pair as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tools.tree import Breach

# Where modules are, and where their tests are. What lies directly in src/doorward is in no room, and free.
SOURCE: Final = "src/doorward"
TESTS: Final = "tests"
TOOLS: Final = "tools"

# Nouns and doors; what they hold is tested where it is used.
EXEMPT_NAMES: Final = frozenset({"__init__.py", "__main__.py", "model.py"})

# Modules without a test file of their own, each with the reason.
EXEMPT: Final[dict[str, str]] = {
    "src/doorward/net/relay.py": "the contract itself: tests/net/relay_contract.py runs every relay through it",
    "src/doorward/api/contracts.py": "protocols without code, which mypy holds the engine to",
    "src/doorward/api/sessions.py": "a protocol without code, which mypy holds the engine to",
    "src/doorward/api/sockets.py": "protocols without code, which mypy holds the engine to",
    "src/doorward/engine/operation.py": "plain values, which tests/engine/test_connection_calls.py goes through",
    "src/doorward/engine/ports/wanted.py": "a plain value, which the tests of binding hand around",
    "src/doorward/engine/origin.py": "a plain value, which every test of the entry hands around",
    "src/doorward/net/openings.py": "protocols without code, which mypy holds the service to",
    "src/doorward/packetfilter/layout.py": "plain values, which tests/packetfilter/test_writing.py goes through",
    "src/doorward/api/events.py": "plain values, which tests/engine hands around",
}


def check(root: Path, exempt: dict[str, str] = EXEMPT) -> Iterator[Breach]:
    """Modules without test, tests without module, and exemptions that nothing needs any more."""
    for directory in _rooms(root):
        room = directory.name
        tests = root / TESTS / room
        for module in sorted(directory.rglob("*.py")):
            test = tests / module.relative_to(directory).with_name(f"test_{module.name}")
            yield from _check_module(root, module, test, exempt)
        for test in sorted(tests.rglob("test_*.py")):
            if not any(module.exists() for module in _candidates(directory / test.relative_to(tests))):
                shown = _path(
                    root, directory / test.relative_to(tests).with_name(test.name.removeprefix("test_"))
                )
                yield Breach(
                    _path(root, test), 1, f"there is no {shown}; name the test after its module, or delete it"
                )
    for path in exempt:
        if (root / SOURCE).exists() and (root / path).parent.exists() and not (root / path).exists():
            yield Breach(path, 1, "gone, but still exempt; delete its line in tools/pairing.py")


def _check_module(root: Path, module: Path, test: Path, exempt: dict[str, str]) -> Iterator[Breach]:
    path = _path(root, module)
    if module.name in EXEMPT_NAMES:
        return
    if path not in exempt:
        if not test.exists():
            yield Breach(path, 1, f"has no test; write {test.relative_to(root)}")
    elif test.exists():
        yield Breach(path, 1, "has a test and needs no exemption; delete its line in tools/pairing.py")


def _candidates(mirrored: Path) -> Iterator[Path]:
    """The modules that a test file may be about: test_name_logins.py is about name_logins.py, or else name.py."""
    words = mirrored.stem.split("_")[1:]
    return (mirrored.with_name("_".join(words[:count]) + ".py") for count in range(len(words), 0, -1))


def _rooms(root: Path) -> list[Path]:
    source, tools = root / SOURCE, root / TOOLS
    rooms = [path for path in sorted(source.iterdir()) if path.is_dir()] if source.exists() else []
    return [room for room in [*rooms, tools] if room.name != "__pycache__" and room.exists()]


def _path(root: Path, file: Path) -> str:
    return file.relative_to(root).as_posix()
