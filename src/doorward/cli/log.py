"""`doorward log`: what happened, and why."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import click

from doorward.cli.common import fail, policy_option, read_policy
from doorward.record import reader, render
from doorward.record.family import of_family
from doorward.record.model import Record, StoreError
from doorward.record.query import INTEGER_MAX, BadCondition, Query, parse_conditions


@click.command("log", short_help="Show what was asked, answered and carried.")
@click.argument("conditions", nargs=-1)
@click.option(
    "--connection",
    type=click.IntRange(min=1),
    metavar="N",
    help="The newest connection of this number, and what came of it.",
)
@click.option("--follow", "-f", is_flag=True, help="Go on with new records as they come.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.option("--wide", "-w", is_flag=True, help="Every field of each record.")
@click.option(
    "--limit", "-n", default=50, show_default=True, metavar="N", help="How many of the newest; 0 for all."
)
@click.option(
    "--file", type=click.Path(path_type=Path), metavar="PATH", help="A store other than the policy's."
)
@policy_option
def command(
    conditions: tuple[str, ...],
    connection: int | None,
    follow: bool,
    as_json: bool,
    wide: bool,
    limit: int,
    file: Path | None,
    policy: Path | None,
) -> None:
    """Show records, oldest first, that meet all CONDITIONS.

    Conditions: action=deny  user=kim  since=1h  until=2026-11-20T10:00  host=*.example.org  to=10.0.0.0/8
    client=127.0.0.1  port=443  reason=default_deny  rule~text  bytes>1m  end!=closed  operation=accept  via=corp
    """
    try:
        query = parse_conditions(conditions, now_us=time.time_ns() // 1000)
    except BadCondition as error:
        fail(str(error), 2)
    path = file or read_policy(policy)[0].log.path
    try:
        if connection is not None:
            query = of_family(path, min(connection, INTEGER_MAX), query)
        _show(_records(path, query, follow=follow, limit=limit), as_json=as_json, wide=wide)
    except StoreError as error:
        fail(str(error))
    except KeyboardInterrupt:
        raise click.exceptions.Exit(0 if follow else 130) from None


def _records(path: Path, query: Query, *, follow: bool, limit: int) -> Iterator[Record]:
    if follow:
        return reader.follow(path, query, backlog=min(limit, 10) if limit else 10)
    if not limit:
        return reader.read(path, query, newest_first=False)
    return reversed(list(reader.read(path, query, limit=limit)))


def _show(records: Iterable[Record], *, as_json: bool, wide: bool) -> None:
    colour = sys.stdout.isatty()
    if not as_json and not wide and colour:
        click.echo(render.header())
    for record in records:
        if as_json:
            click.echo(render.json_line(record))
        elif wide:
            click.echo(render.wide(record) + "\n")
        else:
            click.echo(render.line(record, colour=colour))
