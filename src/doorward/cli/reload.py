"""`doorward reload`: have the running firewall read its policy file again."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import click

from doorward.cli.common import EXIT_UNAVAILABLE, fail, found_policy, plain
from doorward.config.document import ControlTable
from doorward.config.loading import read
from doorward.service.control import ControlUnavailable, ask


@click.command("reload", short_help="Have the running firewall read its policy file again.")
@click.option(
    "--policy", "-p", type=click.Path(path_type=Path), metavar="FILE", help="The policy file it runs with."
)
@click.option(
    "--socket",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Its control socket, if not the policy's.",
)
@click.option("--json", "as_json", is_flag=True, help="The answer as one JSON object.")
def command(policy: Path | None, socket: Path | None, as_json: bool) -> None:
    """Read the policy again, all or nothing: with a mistake in it the old policy stays in force (exit status 1)."""
    try:
        answer = ask(socket or _socket(policy), "reload")
    except ControlUnavailable as error:
        fail(str(error), EXIT_UNAVAILABLE)
    if as_json:
        click.echo(json.dumps({"ok": answer.ok, "message": answer.message, "problems": answer.problems}))
    else:
        for problem in answer.problems:
            click.echo(plain(problem), err=True)
        click.echo(plain(answer.message), err=not answer.ok)
    raise click.exceptions.Exit(0 if answer.ok else 1)


def _socket(policy: Path | None) -> Path:
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
