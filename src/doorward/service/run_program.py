"""A firewall for one launched program: made for it, serving nobody else, and ended with it.

What the program still had under way when it ended is carried to its end; what outlives the program has no network.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from pwd import getpwuid
from typing import TYPE_CHECKING, Any, Final

from msgspec.structs import replace

from doorward.api.errors import DoorwardError, Side
from doorward.api.sessions import Launched
from doorward.engine.operation import Operation
from doorward.engine.outcome import End
from doorward.entry.captured import CapturedEntry
from doorward.entry.captured_program import LaunchedProgram
from doorward.record.model import StoreInUse
from doorward.service.control import ControlServer
from doorward.service.descriptors import clients_that_fit, raise_limit
from doorward.service.firewall import Firewall, StartRefused
from doorward.service.run_learning import Learning, allowing
from doorward.service.run_logs import forget_old, own_log
from doorward.service.run_refusals import Ran, Refusals
from doorward.service.run_signals import exit_status

if TYPE_CHECKING:
    from doorward.capture.launch import Launch
    from doorward.config.model import Configuration, FilterSetting
    from doorward.engine.connection import Connection
    from doorward.service.run_signals import Signals

# A program has ended, and no byte of what it left under way has moved for so long: nobody will miss the rest.
QUIET_S: Final = 1.0
_LOOK_S: Final = 0.02
# Of a command line, for the record.
_COMMAND_CHARACTERS_MAX: Final = 200


class NoControl(ControlServer):
    """A private firewall answers to nobody but who has launched it."""

    async def start(self) -> None:
        """Nothing."""


async def run_program(
    configuration: Configuration,
    log: Any,
    launch: Launch,
    signals: Signals,
    words: Sequence[str],
    *,
    extra_filters: Sequence[FilterSetting] = (),
    learn: bool = False,
    log_command: bool = False,
) -> Ran:
    """Run the held program until it ends. Raises StartRefused, CannotCapture, ProgramNotRun; it has not run then.

    To `learn` is to allow what no guard closes, and to remember what was used. `words` are its command line; records
    have the program alone, unless they are to `log_command`, since arguments may be secrets.
    """
    if learn:
        configuration = allowing(configuration)
    alone = replace(configuration, listen=(), published=(), transparent=None, workers=1)
    firewall = await _started(alone, log, extra_filters)
    entry: CapturedEntry | None = None
    try:
        learnt = Learning(firewall.engine.recorder) if learn else None
        refusals = Refusals(firewall.engine.recorder if learnt is None else learnt)
        firewall.engine.recorder = refusals
        has_room = _room(firewall)
        try:
            who = _launched(launch, words)
            shown = command_line(words) if log_command else who.program
            entry = CapturedEntry(
                firewall.engine, launch.sockets(), launch.channel, has_room, LaunchedProgram(who, shown)
            )
            entry.start()
        except DoorwardError as error:
            raise StartRefused(f"the program's traffic cannot be served: {error.detail}") from error
        status = await _run(launch, signals)
        entry.stop_listening()
        every = firewall.engine.connections
        await settle(firewall, entry, lambda: list(every.values()), launch.has_others)
    finally:
        if entry is not None:
            entry.close()
        await firewall.stop()
    used = firewall.configuration.log.path
    return Ran(status, refusals, used, used != configuration.log.path, learnt)


def _launched(launch: Launch, words: Sequence[str]) -> Launched:
    """Who the program is. One that cannot be found goes by no name: it will not run."""
    assert launch.program is not None
    found = launch.executable
    program, file = ("", "") if found is None else (found.program, found.file)
    return Launched(program, file, name_of_user(os.getuid()), launch.program.process, tuple(words))


def name_of_user(number: int) -> str:
    """As this machine calls it."""
    try:
        return getpwuid(number).pw_name
    except KeyError:
        return str(number)  # no name belongs to it


def command_line(words: Sequence[str]) -> str:
    """For the record."""
    import shlex

    return shlex.join(words)[:_COMMAND_CHARACTERS_MAX]


async def _started(
    configuration: Configuration, log: Any, extra_filters: Sequence[FilterSetting]
) -> Firewall:
    """A firewall that serves nobody yet, with a log of its own where another one has the policy's."""
    try:
        return await _start(configuration, log, extra_filters)
    except StartRefused as refused:
        if not isinstance(refused.__cause__, StoreInUse):
            raise
    forget_old(configuration.log.path)
    own = own_log(configuration.log.path)
    return await _start(replace(configuration, log=replace(configuration.log, path=own)), log, extra_filters)


async def _start(configuration: Configuration, log: Any, extra_filters: Sequence[FilterSetting]) -> Firewall:
    firewall = Firewall(configuration, log, extra_filters)
    firewall.control = NoControl(configuration.control_path, {})
    await firewall.start()
    return firewall


async def _run(launch: Launch, signals: Signals) -> int:
    """Its exit status. Raises ProgramNotRun."""
    assert launch.program is not None
    launch.program.release()
    ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    signals.follow(launch.program.process, ended.set_result)
    return exit_status(await ended)


async def settle(
    firewall: Firewall,
    entry: CapturedEntry,
    mine: Callable[[], list[Connection]],
    has_others: Callable[[], bool],
    *,
    given_up: Callable[[], bool] = lambda: False,
    look_s: float = _LOOK_S,
) -> None:
    """Give what a program left under way its time, while bytes move. What outlived it would not let them rest.

    `mine` are its connections; `has_others` says whether anything outlived it, `given_up` that nobody waits any more.
    """
    loop = asyncio.get_running_loop()
    for connection in mine():
        if connection.operation is Operation.UDP:  # nobody else says that it is over
            firewall.engine.ended(connection, End("closed", Side.INTERNAL))
    if not (mine() or entry.serving) or has_others():
        return
    deadline = loop.time() + firewall.configuration.limits.drain_timeout_s
    moved, quiet_until = -1, 0.0
    while ((alive := mine()) or entry.serving) and not given_up():
        now = loop.time()
        total = sum(_moved(firewall, connection) for connection in alive)
        if total != moved:
            moved, quiet_until = total, now + QUIET_S
        if now >= min(deadline, quiet_until):
            return
        await asyncio.sleep(look_s)


def _moved(firewall: Firewall, connection: Connection) -> int:
    counts = None if connection.relay_id is None else firewall.engine.relay.counts(connection.relay_id)
    carried = 0 if counts is None else counts.bytes_sent + counts.bytes_received
    legs = (connection.internal, connection.external)
    return carried + sum(leg.sent + leg.received for leg in legs if leg is not None)


def _room(firewall: Firewall) -> Callable[[], bool]:
    fit = clients_that_fit(raise_limit())
    most = firewall.configuration.limits.connections_max
    connections = firewall.engine.connections

    def has_room() -> bool:
        alive = len(connections)
        return alive < fit and (not most or alive < most)

    return has_room
