"""A real `doorward serve` as a child process, with everything a test wants to know about it.

Nothing here knows the insides: it reads what the program prints, its operational log on standard error, its record
store, and what the kernel says about the process.
"""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from doorward.record import reader
from doorward.record.model import Record, StoreMissing
from doorward.record.query import Query

PATIENCE_S: Final = 15.0
REPOSITORY: Final = Path(__file__).resolve().parents[2]

LISTEN: Final = """
[listen]
proxy = ["127.0.0.1:0"]
[limits]
drain_timeout_s = 1
"""
# Servers of the tests are on loopback, which only a rule that names it opens.
EVERYTHING_HERE: Final = """
[[rule]]
name = "everything here"
action = "allow"
to = ["127.0.0.0/8", "::1"]
protocols = ["any"]
"""

T = TypeVar("T")


def wait_for(look: Callable[[], T | None], what: str) -> T:
    """The first answer of `look` that is neither None nor false; fails the test when it does not come."""
    deadline = time.monotonic() + PATIENCE_S
    while not (found := look()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {PATIENCE_S:g} s: {what}")
        time.sleep(0.01)
    return found


class RunningFirewall:
    """One child process. `home` holds its policy file, its log, and what it printed; {home} in an argument is that."""

    def __init__(
        self,
        home: Path,
        policy: str = LISTEN + EVERYTHING_HERE,
        *,
        arguments: Sequence[str] = (),
        descriptors_max: int | None = None,
        prefix: Sequence[str] = (),
    ) -> None:
        """`prefix` is what runs the command elsewhere, in another namespace say, by exec."""
        self.home = home
        self.policy_path = home / "doorward.toml"
        self.policy_path.write_text(policy)
        self.errors_expected = False
        self._stdout = home / "stdout"
        self._stderr = home / "stderr"
        command = [sys.executable, "-m", "doorward", "serve", "--policy", str(self.policy_path)]
        command += [argument.format(home=home) for argument in arguments]
        if descriptors_max is not None:
            command = ["sh", "-c", f'ulimit -n {descriptors_max}; exec "$@"', "sh", *command]
        command = [*prefix, *command]
        with self._stdout.open("wb") as stdout, self._stderr.open("wb") as stderr:
            self.process = subprocess.Popen(
                command, stdout=stdout, stderr=stderr, cwd=REPOSITORY, env=_environment()
            )
        self.port = wait_for(self._listening, "the firewall listens")

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def log_path(self) -> Path:
        return self.home / "var" / "doorward.db"

    def dial(self) -> socket.socket:
        """A plain connection to the proxy's port."""
        return socket.create_connection(("127.0.0.1", self.port), PATIENCE_S)

    def printed(self) -> str:
        """Everything on standard output so far."""
        return self._stdout.read_text()

    def told(self) -> list[dict[str, Any]]:
        """The operational log so far, one dictionary a line; a line that is not JSON is an error of its own."""
        return [_line(text) for text in self._stderr.read_text().splitlines()]

    def events(self, event: str) -> list[dict[str, Any]]:
        """The lines of the operational log about one event."""
        return [line for line in self.told() if line.get("event") == event]

    def records(self) -> list[Record]:
        """Every record on disk, oldest first."""
        try:
            return list(reader.read(self.log_path, Query(), newest_first=False))
        except StoreMissing:
            return []

    def wait_for_records(
        self, count: int, matches: Callable[[Record], bool] = lambda record: True
    ) -> list[Record]:
        """At least so many matching records."""

        def look() -> list[Record] | None:
            found = [record for record in self.records() if matches(record)]
            return found if len(found) >= count else None

        return wait_for(look, f"{count} records on disk")

    def sockets(self) -> int:
        """How many sockets it has open. (The relay keeps some pipes for later; no socket outlives its connection.)"""
        found = 0
        for entry in Path(f"/proc/{self.pid}/fd").iterdir():
            try:
                found += entry.readlink().name.startswith("socket:")
            except FileNotFoundError:
                pass  # closed meanwhile
        return found

    def resident_bytes(self) -> int:
        """Memory of the process that is in use."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * resource.getpagesize()

    def rewrite_policy(self, policy: str) -> None:
        """Put another policy in place in one step, as an editor or a deployment would."""
        new = self.home / "new.toml"
        new.write_text(policy)
        new.replace(self.policy_path)

    def hang_up(self) -> None:
        """SIGHUP, and wait until the reload has been done or refused."""
        before = len(self.events("reloaded")) + len(self.events("reload refused"))
        self.process.send_signal(signal.SIGHUP)
        wait_for(
            lambda: len(self.events("reloaded")) + len(self.events("reload refused")) > before,
            "the reload is over",
        )

    def doorward(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run another `doorward` command against the same policy file."""
        command = [sys.executable, "-m", "doorward", *arguments, "--policy", str(self.policy_path)]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=PATIENCE_S, check=False, env=_environment()
        )

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.wait(PATIENCE_S)

    def end(self) -> None:
        """SIGTERM if it still runs; fails unless it ends in order and has told of no error."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                status = self.process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                self.kill()
                raise AssertionError("the firewall did not end after SIGTERM") from None
            assert status == 0, self._stderr.read_text()
        if not self.errors_expected:
            mistakes = [line for line in self.told() if line.get("level") not in ("debug", "info", "warning")]
            assert not mistakes, mistakes

    def _listening(self) -> int | None:
        if self.process.poll() is not None:
            raise AssertionError(f"the firewall ended at once: {self._stderr.read_text()}")
        found = re.search(r"listening +\S*?:(\d+)[ ,]", self.printed())
        return int(found[1]) if found else None


def _line(text: str) -> dict[str, Any]:
    try:
        line = json.loads(text)
    except ValueError:
        line = None
    return line if isinstance(line, dict) else {"level": "not a log line", "text": text}


def _environment() -> dict[str, str]:
    """No proxy settings and no policy of whoever runs the tests; warnings of the firewall are errors of the test."""
    keep = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    keep.pop("DOORWARD_POLICY", None)
    return keep | {
        "PYTHONPATH": str(REPOSITORY / "src"),
        "PYTHONWARNINGS": "always",
        "PYTHONFAULTHANDLER": "1",
    }
