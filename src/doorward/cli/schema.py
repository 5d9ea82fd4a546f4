"""`doorward schema`: the JSON Schema of the policy file, for editors."""

from __future__ import annotations

import click

from doorward.config.schema import schema_text


@click.command("schema", short_help="Print the JSON Schema of the policy file.")
def command() -> None:
    """Print the JSON Schema of the policy file (draft 2020-12), for editors that complete and check TOML."""
    click.echo(schema_text(), nl=False)
