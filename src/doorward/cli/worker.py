"""`doorward worker`: not for people. The supervisor of `doorward serve` starts its workers with it."""

from __future__ import annotations

import os

import click

from doorward.service.worker import main


@click.command("worker", hidden=True)
@click.argument("control", type=int)
@click.argument("records", type=int)
@click.argument("supervisor", type=int)
def command(control: int, records: int, supervisor: int) -> None:
    """Serve clients for the process SUPERVISOR, with the descriptors CONTROL and RECORDS that it left open."""
    try:
        status = main(control, records, supervisor)
    except OSError as error:
        raise click.UsageError(f"only `doorward serve` starts workers: {error}") from error
    # As in `serve`: a thread inside the system's resolver must not hold the process.
    os._exit(status)
