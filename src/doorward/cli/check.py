"""`doorward check`: every mistake of a policy file, with its line."""

from __future__ import annotations

import json
from pathlib import Path

import click

from doorward.cli.common import fail, found_policy, plain, policy_option
from doorward.config.loading import read
from doorward.service.filters import FilterNotLoaded, load_filters


@click.command("check", short_help="Check a policy file and say every mistake.")
@click.argument("file", required=False, type=click.Path(path_type=Path))
@policy_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object in place of lines.")
@click.option("--no-filters", is_flag=True, help="Do not run the code of filter files.")
def command(file: Path | None, policy: Path | None, as_json: bool, no_filters: bool) -> None:
    """Check FILE, or the policy file that `serve` would use. Exit status 1 if there is a mistake.

    Each mistake is one line: FILE:LINE: KEY: what is wrong. Warnings do not make the check fail. Filters are
    loaded as `serve` would do, so their code runs; --no-filters leaves that out.
    """
    path = file or found_policy(policy)
    reading = read(path)
    filter_mistake = None
    if reading.configuration is not None and not no_filters:
        try:
            load_filters(reading.configuration.filters, reading.configuration.protocols)
        except FilterNotLoaded as error:
            filter_mistake = str(error)
    ok = reading.configuration is not None and filter_mistake is None
    if as_json:
        problems = [
            {
                "file": p.file,
                "line": p.line,
                "path": list(p.path),
                "severity": p.severity,
                "message": p.message,
            }
            for p in reading.problems
        ]
        if filter_mistake is not None:
            problems.append(
                {
                    "file": str(path),
                    "line": 0,
                    "path": ["filter"],
                    "severity": "error",
                    "message": filter_mistake,
                }
            )
        click.echo(json.dumps({"ok": ok, "problems": problems}))
        raise click.exceptions.Exit(0 if ok else 1)
    for problem in reading.problems:
        click.echo(str(problem), err=True)
    if filter_mistake is not None:
        click.echo(plain(f"{path}: {filter_mistake}"), err=True)
    if not ok or reading.configuration is None:
        fail(f"{path} does not pass its check")
    configuration = reading.configuration
    click.echo(
        f"{path}: good: {len(configuration.policy.rules)} rules, {len(configuration.users)} users, "
        f"{len(configuration.filters)} filters, revision {configuration.revision}"
    )
