"""What tests of grants stand on: a clock for their timeouts, and a policy that allows one server and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

from tests.engine.rig import LOOPBACK, Plugin, Rig

from doorward.api import SessionFilter
from doorward.engine.association import FilterEntry
from doorward.engine.connection import Connection
from doorward.engine.session import Session
from doorward.policy.model import Action, PortRange, Rule


class Timer:
    """What `call_later` returns."""

    def __init__(self, timers: Timers, at: float, call: Callable[[], None]) -> None:
        self.timers = timers
        self.at = at
        self.call = call

    def cancel(self) -> None:
        self.timers.waiting.discard(self)


class Timers:
    """A loop's timers, moved by hand."""

    def __init__(self) -> None:
        self.now = 0.0
        self.waiting: set[Timer] = set()

    def call_later(self, delay_s: float, call: Callable[[], None]) -> Timer:
        timer = Timer(self, self.now + delay_s, call)
        self.waiting.add(timer)
        return timer

    def advance(self, seconds: float) -> None:
        self.now += seconds
        for timer in sorted(self.waiting, key=lambda t: t.at):
            if timer.at <= self.now:
                self.waiting.discard(timer)
                timer.call()


def timers_of(rig: Rig) -> Timers:
    """Take the timeouts of grants into our own hands."""
    timers = Timers()
    rig.engine.grants.loop = cast("Any", timers)
    return timers


def only_the_server(rig: Rig, entries: Sequence[FilterEntry] = ()) -> None:
    """From now on policy allows the rig's server, and nothing else."""
    port = rig.server.port
    rule = Rule(
        "parent",
        Action.ALLOW,
        7,
        to_networks=LOOPBACK,
        to_names=("*.test",),
        ports=(PortRange("tcp", port, port),),
    )
    rig.engine.ruling = rig.ruling(entries, [rule])


async def parent_of(rig: Rig, **options: Any) -> Connection:
    """A connection to the server that policy allows."""
    connection = await rig.connect(**options)
    assert connection.refusal is None, connection.refusal
    return connection


def holder_of(rig: Rig, plugin: Plugin, session: Session) -> SessionFilter:
    """The plugin's object in this session."""
    entries = rig.engine.ruling.associations.entries
    entry = next(e for e in entries if e.application_filter is plugin)
    return session.filter_of(entry)
