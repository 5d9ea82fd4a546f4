"""`doorward completion`: the script that makes a shell complete our words."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from doorward.cli.main import cli


@click.command("completion", short_help="Print the completion script of a shell.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print the completion script for SHELL.

    For bash: doorward completion bash > ~/.local/share/bash-completion/completions/doorward
    """
    complete = get_completion_class(shell)
    assert complete is not None, "click knows all three"
    click.echo(complete(cli, {}, "doorward", "_DOORWARD_COMPLETE").source())
