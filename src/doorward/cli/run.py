"""`doorward run`: a command behind a firewall of its own, whatever it speaks and whether or not it knows of proxies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from doorward.cli.launching import SETTINGS, Wish, launch, launch_options

if TYPE_CHECKING:
    from doorward.service.run_program import Ran


@click.command("run", short_help="Run a command behind a firewall of its own.", context_settings=SETTINGS)
@launch_options
@click.option("--quiet", "-q", is_flag=True, help="Do not tell at the end what was refused.")
@click.option(
    "--json", "json_path", type=click.Path(path_type=Path), metavar="FILE", help="Write that as JSON."
)
def command(quiet: bool, json_path: Path | None, **wish: Any) -> None:
    """Run COMMAND in a network of its own, from which there is no way out but through this firewall.

    Every TCP connection and UDP datagram is judged by the policy, recorded, and shown to filters; nothing has to be
    set in the command, and no rights are needed. What was refused is told at the end. The exit status is the
    command's; 125 if it was not run, 126 if it cannot be, 127 if there is none.
    """

    def tell(ran: Ran) -> None:
        if json_path is not None:
            _write(json_path, ran)
        if not quiet:
            for line in ran.refusals.told():
                click.echo(line, err=True)

    launch(Wish(**wish), tell)


def _write(path: Path, ran: Ran) -> None:
    """The command is over, so what fails here does not change the exit status."""
    try:
        path.write_text(json.dumps(ran.refusals.as_data(), indent=2) + "\n", encoding="ascii")
    except OSError as error:
        click.echo(f"doorward: cannot write {path}: {error.strerror}", err=True)
