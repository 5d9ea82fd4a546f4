"""What `run` and `learn` share: from the words on the command line to the end of a launched command.

Most imports are inside: the namespace is made while they are read, and the forks come before there is anything that a
fork would carry along.
"""

from __future__ import annotations

import errno
import gc
import os
import sys
import traceback
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn, TypeVar

import click

from doorward.capture.launch import CannotCapture, Launch
from doorward.capture.program import ProgramNotRun
from doorward.cli.joining import run_joining

if TYPE_CHECKING:
    from doorward.config.model import Configuration
    from doorward.service.run_refusals import Ran

F = TypeVar("F", bound=Callable[..., Any])

# As `env`, `nice` and `timeout` have it: ours, not executable, not found; the rest is the command's.
EXIT_NOT_RUN: Final = 125
EXIT_NOT_EXECUTABLE: Final = 126
EXIT_NOT_FOUND: Final = 127
_STATUS_OF: Final = {errno.ENOENT: EXIT_NOT_FOUND, 0: EXIT_NOT_RUN}
_WORDS_MAX: Final = 4000
# Everything after the first word that is no option is the command's.
SETTINGS: Final = {"ignore_unknown_options": True, "allow_interspersed_args": False}


class Wish(NamedTuple):
    """What was asked for on the command line."""

    words: tuple[str, ...]
    policy: Path | None
    filters: tuple[Path, ...]
    log_path: Path | None
    private_sockets: bool
    close_fds: bool
    log_command: bool
    learn: bool = False
    join: bool = False
    socket: Path | None = None


def launch_options(function: F) -> F:
    """The options of whoever launches commands, and the command."""
    for decorate in reversed(_OPTIONS):
        function = decorate(function)
    return function


def launch(wish: Wish, tell: Callable[[Ran], None]) -> NoReturn:
    """Run it, `tell` how it was, and end with its exit status."""
    gc.disable()  # what is loaded now stays: looking for garbage in it takes a tenth of the time to load it
    try:
        started = Launch(lambda: import_module("asyncio"))
    except CannotCapture as error:
        os._exit(_not_run(wish.words[0], str(error)))
    status, ran = EXIT_NOT_RUN, None
    try:
        started.hold(wish.words, close_descriptors=wish.close_fds, private_sockets=wish.private_sockets)
        ran = run_joining(started, wish) if wish.join else _run(started, wish)
        status = ran.status
    except CannotCapture as error:
        _not_run(wish.words[0], str(error))
    except ProgramNotRun as error:
        _not_run(wish.words[0], str(error))
        status = _STATUS_OF.get(error.number, EXIT_NOT_EXECUTABLE)
    except (click.exceptions.Exit, click.ClickException):
        raise  # said already, with a status of its own
    except Exception:  # our own mistake; whoever called is told a status that is not the command's
        traceback.print_exc()
    finally:
        started.close()
    if ran is not None:
        tell(ran)
        if ran.is_own_log:
            click.echo(f"doorward: another firewall has the policy's log; records are in {ran.log}", err=True)
    sys.stderr.flush()
    # Every record is written. A thread that still waits inside the system's resolver must not hold the process.
    os._exit(status)


def _run(started: Launch, wish: Wish) -> Ran:
    """Everything between the fork and the program's end. Raises CannotCapture, ProgramNotRun; ends the command."""
    import asyncio

    from doorward.config.model import FilterSetting
    from doorward.service.firewall import StartRefused
    from doorward.service.late_log import LateLog
    from doorward.service.run_program import run_program
    from doorward.service.run_signals import Signals

    gc.freeze()
    gc.enable()
    configuration = _configuration(wish)
    extra = [FilterSetting(path.stem, str(path.resolve())) for path in wish.filters]
    running = run_program(
        configuration,
        LateLog(),
        started,
        Signals(),
        wish.words,
        extra_filters=extra,
        learn=wish.learn,
        log_command=wish.log_command,
    )
    try:
        return asyncio.run(running)
    except StartRefused as error:
        raise CannotCapture(str(error)) from error


def _configuration(wish: Wish) -> Configuration:
    """What the policy file says; who learns may do without one. Ends the command if it does not pass its check."""
    from msgspec.structs import replace

    from doorward.cli.common import read_policy
    from doorward.config.find import FILE_NAME, PolicyNotFound, find_policy
    from doorward.config.loading import read_bytes

    try:
        find_policy(wish.policy)
        found = True
    except PolicyNotFound:
        found = wish.policy is not None or not wish.learn
    if found:
        configuration, _ = read_policy(wish.policy)
    else:
        nothing = read_bytes(b"", Path(FILE_NAME).absolute()).configuration
        assert nothing is not None, "an empty policy passes its check"
        configuration = nothing
    if wish.log_path is not None:
        configuration = replace(configuration, log=replace(configuration.log, path=wish.log_path.absolute()))
    return configuration


def _not_run(what: str, why: str) -> int:
    """Say so; the exit status that says it, too."""
    from doorward.wire.printable import printable

    click.echo(f"doorward: {printable(what)} was not run: {printable(why, _WORDS_MAX)}", err=True)
    return EXIT_NOT_RUN


def _option(*names: str, **more: Any) -> Callable[[F], F]:
    return click.option(*names, **more)


_OPTIONS: Final = (
    click.argument(
        "words", nargs=-1, required=True, type=click.UNPROCESSED, metavar="[--] COMMAND [ARGUMENTS]..."
    ),
    _option(
        "--policy", "-p", type=click.Path(path_type=Path), metavar="FILE",
        help="The policy file. Without it: $DOORWARD_POLICY, ./doorward.toml, then the usual places.",
    ),
    _option(
        "--filter", "-s", "filters", multiple=True, metavar="FILE",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="A filter to run besides those of the policy; may be given again.",
    ),
    _option("--log", "log_path", type=click.Path(path_type=Path), metavar="PATH", help="Where records go."),
    _option(
        "--log-command", is_flag=True,
        help="Put the whole command line on record, and not the program alone. Its arguments may be secrets.",
    ),
    _option(
        "--private-sockets", is_flag=True,
        help="Hide the Unix sockets of desktop, agents, containers and system services from the command.",
    ),
    _option("--close-fds", is_flag=True, help="Let the command inherit no descriptor but the standard ones."),
)  # fmt: skip
