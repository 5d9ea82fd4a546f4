from __future__ import annotations

import json
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cli.child import PATIENCE_S, reply_code, serving, tunnel
from tests.entry.filters import TELL, use
from tests.entry.world import HEAD, RULE, limits, short_home

from doorward.record import reader
from doorward.record.model import Record
from doorward.record.query import Query

DENY = HEAD + '[[rule]]\nname = "nothing"\naction = "deny"\nprotocols = ["any"]\n'


@pytest.fixture
def home() -> Iterator[Path]:
    with short_home() as path:
        (path / "doorward.toml").write_text(HEAD + limits(drain_timeout_s=PATIENCE_S) + RULE)
        yield path


def records(home: Path) -> list[Record]:
    return list(reader.read(home / "log.db", Query(), newest_first=False))


def no_longer_listens(port: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            return
    raise AssertionError("it still listens")


def test_a_hangup_reloads_and_a_mistake_then_changes_nothing(home: Path) -> None:
    with serving(home) as (child, port):
        (home / "doorward.toml").write_text(DENY)
        child.process.send_signal(signal.SIGHUP)
        child.wait_for('"event": "reloaded"', error=True)
        assert reply_code(port, 9) == 2
        (home / "doorward.toml").write_text("nonsense")
        child.process.send_signal(signal.SIGHUP)
        child.wait_for('"event": "reload refused"', error=True)
        assert reply_code(port, 9) == 2
        child.process.send_signal(signal.SIGTERM)
        assert child.end() == 0


def test_a_hangup_that_comes_while_it_starts_reloads_when_it_has_started(home: Path) -> None:
    early = "os.kill(os.getpid(), signal.SIGHUP)"
    (home / "early.py").write_text(
        f"import os, signal\n{early}\nfrom doorward.api import ApplicationFilter\n"
        f"class Early(ApplicationFilter):\n    async def start(self, host):\n        {early}\n"
    )
    (home / "doorward.toml").write_text(HEAD + RULE + '[[filter]]\nname = "early"\nuse = "early.py"\n')
    with serving(home) as (child, _):
        child.wait_for('"event": "reloaded"', error=True)
        child.process.send_signal(signal.SIGTERM)
        assert child.end() == 0


def test_a_termination_lets_connections_end_first(home: Path) -> None:
    with serving(home) as (child, port), tunnel(port) as (client, outer):
        child.process.send_signal(signal.SIGTERM)
        child.wait_for("draining", error=True)
        no_longer_listens(port)
        client.sendall(b"last words")
        assert outer.recv(100) == b"last words"
        assert child.process.poll() is None
        client.close()
        outer.close()
        assert child.end() == 0
        # Whoever looked whether it still listens, while it did, is on record as well.
        served = [r for r in records(home) if r.reason != "abandoned"]
        assert [(r.action, r.end, r.bytes_sent) for r in served] == [("allow", "closed", 10)]
        assert not (home / "control").exists()


def test_a_second_termination_does_not_wait(home: Path) -> None:
    with serving(home) as (child, port), tunnel(port):
        child.process.send_signal(signal.SIGTERM)
        child.wait_for("draining", error=True)
        child.process.send_signal(signal.SIGTERM)
        assert child.end() == 0
        assert [r.action for r in records(home)] == ["allow"]


def test_an_interrupt_ends_at_once_without_a_traceback(home: Path) -> None:
    with serving(home) as (child, port), tunnel(port) as (client, _):
        child.process.send_signal(signal.SIGINT)
        assert child.end() == 0
        with pytest.raises(ConnectionResetError):
            client.recv(1)
        assert not any("Traceback" in line for line in child.errors)
        assert [r.action for r in records(home)] == ["allow"]


def test_an_interrupt_tells_filters_and_stops_them(home: Path) -> None:
    (home / "tell.py").write_text(TELL.format(version=1))
    (home / "doorward.toml").write_text(HEAD + use("tell") + RULE)
    with serving(home) as (child, port), tunnel(port):
        child.process.send_signal(signal.SIGINT)
        assert child.end() == 0
        events = [json.loads(line)["event"] for line in child.errors]
        assert events == ["started", "session", "connect", "terminating", "stopped"]


def test_filters_of_the_command_line_run_beside_those_of_the_policy(home: Path) -> None:
    (home / "extra.py").write_text(TELL.format(version=1))
    with serving(home, "--filter", "extra.py") as (child, port), tunnel(port):
        child.wait_for('"connect"', error=True)
        assert any("filters" in line and "extra" in line for line in child.output)
        child.process.send_signal(signal.SIGINT)
        assert child.end() == 0
