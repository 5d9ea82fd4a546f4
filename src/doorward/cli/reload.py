"""`doorward reload`: have the running firewall read its policy file again."""

from __future__ import annotations

import json
from pathlib import Path

import click

from doorward.cli.common import EXIT_UNAVAILABLE, control_socket, fail, plain
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
        answer = ask(socket or control_socket(policy), "reload")
    except ControlUnavailable as error:
        fail(str(error), EXIT_UNAVAILABLE)
    if as_json:
        click.echo(json.dumps({"ok": answer.ok, "message": answer.message, "problems": answer.problems}))
    else:
        for problem in answer.problems:
            click.echo(plain(problem), err=True)
        click.echo(plain(answer.message), err=not answer.ok)
    raise click.exceptions.Exit(0 if answer.ok else 1)
