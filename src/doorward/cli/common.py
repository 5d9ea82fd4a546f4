"""What several commands share: the policy option, loading with every mistake shown, exit statuses."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar

import click

from doorward.config.document import ControlTable
from doorward.config.find import PolicyNotFound, find_policy
from doorward.config.loading import Reading, read
from doorward.config.model import Configuration
from doorward.wire.printable import printable

EXIT_UNAVAILABLE: Final = 69
EXIT_BAD_CONFIGURATION: Final = 78
LINE_CHARACTERS_MAX: Final = 4_000

F = TypeVar("F", bound=Callable[..., Any])


def policy_option(function: F) -> F:
    """`--policy FILE`."""
    return click.option(
        "--policy",
        "-p",
        "policy",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="The policy file. Without it: $DOORWARD_POLICY, ./doorward.toml, then the usual places.",
    )(function)


def plain(message: str) -> str:
    """A message with nothing in it that a terminal would obey; its line ends stay."""
    return "\n".join(printable(line, LINE_CHARACTERS_MAX) for line in message.split("\n"))


def fail(message: str, status: int = 1) -> NoReturn:
    """Say what is wrong on standard error, and end. The message may quote anybody: it is escaped here, line by line."""
    click.echo(f"doorward: {plain(message)}", err=True)
    raise click.exceptions.Exit(status)


def found_policy(explicit: Path | None) -> Path:
    """The policy file to use; ends the command if there is none."""
    try:
        return find_policy(explicit)
    except PolicyNotFound as error:
        fail(str(error), EXIT_BAD_CONFIGURATION)


def read_policy(explicit: Path | None) -> tuple[Configuration, Reading]:
    """The configuration, with what was noticed; ends the command with every mistake if it does not pass."""
    path = found_policy(explicit)
    reading = read(path)
    if reading.configuration is None:
        for problem in reading.problems:
            click.echo(str(problem), err=True)
        fail(f"{path} does not pass its check", EXIT_BAD_CONFIGURATION)
    return reading.configuration, reading


def control_socket(policy: Path | None) -> Path:
    """Where the policy puts the socket. A file with mistakes still has a running firewall that should say so."""
    path = found_policy(policy)
    configuration = read(path).configuration
    if configuration is not None:
        return configuration.control_path
    return path.absolute().parent / (_written(path) or ControlTable().path)


def _written(path: Path) -> str | None:
    """What a file with mistakes says about the socket, as far as it can be read."""
    try:
        found = tomllib.loads(path.read_text())["control"]["path"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
    return found if isinstance(found, str) else None
