"""`doorward run`: a command behind a firewall of its own, whatever it speaks and whether or not it knows of proxies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from doorward.cli.joining import expect_sense
from doorward.cli.launching import SETTINGS, Wish, launch, launch_options

if TYPE_CHECKING:
    from doorward.service.run_refusals import Ran, RefusalCounts


@click.command("run", short_help="Run a command behind a firewall of its own.", context_settings=SETTINGS)
@launch_options
@click.option("--quiet", "-q", is_flag=True, help="Do not tell at the end what was refused.")
@click.option(
    "--json", "json_path", type=click.Path(path_type=Path), metavar="FILE", help="Write that as JSON."
)
@click.option(
    "--join", is_flag=True, help="Behind the firewall that is running with this policy, not one of its own."
)
@click.option(
    "--socket", type=click.Path(path_type=Path), metavar="PATH",
    help="With --join: the control socket of that firewall, if not the policy's.",
)  # fmt: skip
def command(quiet: bool, json_path: Path | None, **wish: Any) -> None:
    """Run COMMAND in a network of its own, from which there is no way out but through this firewall.

    Every TCP connection and UDP datagram is judged by the policy, recorded, and shown to filters; nothing has to be
    set in the command, and no rights are needed. What was refused is told at the end. The exit status is the
    command's; 125 if it was not run, 126 if it cannot be, 127 if there is none.
    """

    def tell(ran: Ran) -> None:
        if ran.refusals is None:  # the firewall that was joined has ended, and that has been said
            return
        if json_path is not None:
            _write(json_path, ran.refusals)
        if not quiet:
            for line in ran.refusals.told():
                click.echo(line, err=True)

    wanted = Wish(**wish)
    expect_sense(wanted)
    launch(wanted, tell)


def _write(path: Path, refusals: RefusalCounts) -> None:
    """The command is over, so what fails here does not change the exit status."""
    try:
        path.write_text(json.dumps(refusals.as_data(), indent=2) + "\n", encoding="ascii")
    except OSError as error:
        click.echo(f"doorward: cannot write {path}: {error.strerror}", err=True)
