"""`doorward learn`: run a command, allow what it wants, and write down as a policy what that was."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from doorward.cli.launching import SETTINGS, Wish, launch, launch_options

if TYPE_CHECKING:
    from doorward.service.run_refusals import Ran


@click.command(
    "learn", short_help="Run a command, and write the policy that it needs.", context_settings=SETTINGS
)
@launch_options
@click.option(
    "--output", "-o", type=click.Path(path_type=Path), default=Path("learnt.toml"), show_default=True,
    help="The policy to write; its test stands beside it.",
)  # fmt: skip
@click.option("--force", is_flag=True, help="Write over files that are there already.")
def command(output: Path, force: bool, **wish: Any) -> None:
    """Run COMMAND as `doorward run` does, but allow everything that no guard closes.

    At its end a policy is written that allows exactly what was used, and a test of that policy beside it. The exit
    status is as for `doorward run`.
    """
    test = output.with_name(f"test_{output.stem.replace('-', '_').replace('.', '_')}.py")
    for path in (output, test):
        is_there = os.path.exists(path)  # noqa: PTH110  (Path.exists raises where we may not look)
        if is_there and not force:
            raise click.UsageError(f"{path} is there already; name another with --output, or use --force")
        if not os.access(path if is_there else path.parent, os.W_OK):
            raise click.UsageError(f"{path} cannot be written; name a place for it with --output")

    def tell(ran: Ran) -> None:
        assert ran.learnt is not None
        assert ran.refusals is not None
        for line in ran.refusals.told():
            click.echo(line, err=True)
        try:
            output.write_text(ran.learnt.policy(wish["words"][0]), encoding="utf-8")
            test.write_text(ran.learnt.test(output), encoding="utf-8")
        except OSError as error:
            click.echo(f"doorward: cannot write {error.filename}: {error.strerror}", err=True)
            return
        used = len(ran.learnt)
        more = f", and {ran.learnt.more} more than fit" if ran.learnt.more else ""
        click.echo(f"doorward: {used} destinations{more} are in {output}; pytest {test} tries it", err=True)

    launch(Wish(**wish, learn=True), tell)
