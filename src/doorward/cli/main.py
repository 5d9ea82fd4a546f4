"""The `doorward` command. Commands are imported when they are called, so that each starts quickly.

Exit status: 0 done, 1 it failed or the answer is no, 2 wrong words, 69 no firewall is running, 78 the policy file
does not pass its check.
"""

from __future__ import annotations

import gc
import importlib
import os
import sys
from typing import Final

import click

import doorward

COMMANDS: Final = {
    "check": "doorward.cli.check",
    "completion": "doorward.cli.completion",
    "explain": "doorward.cli.explain",
    "learn": "doorward.cli.learn",
    "log": "doorward.cli.log",
    "nft": "doorward.cli.nft",
    "packet-filter": "doorward.cli.packet_filter",
    "reload": "doorward.cli.reload",
    "run": "doorward.cli.run",
    "schema": "doorward.cli.schema",
    "serve": "doorward.cli.serve",
    "status": "doorward.cli.status",
    "user": "doorward.cli.user",
    "version": "doorward.cli.version",
}
# Not for people, and not listed.
HIDDEN: Final = {"worker": "doorward.cli.worker"}


class LazyGroup(click.Group):
    """Finds a command by name without importing the others."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        module = COMMANDS.get(cmd_name) or HIDDEN.get(cmd_name)
        if module is None:
            return None
        command: click.Command = importlib.import_module(module).command
        gc.enable()
        return command


@click.command(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="The policy file is --policy, $DOORWARD_POLICY, ./doorward.toml, "
    "~/.config/doorward/doorward.toml or /etc/doorward/doorward.toml, the first that is there.",
)
@click.version_option(doorward.__version__, "--version", prog_name="doorward", message="%(prog)s %(version)s")
def cli() -> None:
    """A programmable application-layer firewall: every connection is judged, recorded and explained."""


def main() -> None:
    """The entry point."""
    _stand_in()
    gc.disable()  # what is imported stays; looking for garbage in it costs a launched program some milliseconds
    cli(prog_name="doorward")


def _stand_in() -> None:
    """Put something where standard input, output or error was closed: no socket of ours may get these numbers.

    Programs that we start do not inherit it: what was closed for us is closed for them.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115
