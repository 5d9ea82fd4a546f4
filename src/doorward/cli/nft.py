"""`doorward nft`: the kernel's packet filter that a policy makes, and how it differs from the one that is loaded."""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import Final

import click

from doorward.cli.common import fail, plain, policy_option, read_policy
from doorward.packetfilter.layout import Layout
from doorward.packetfilter.loaded import LoadedUnreadable, loaded_lines, wanted_lines
from doorward.packetfilter.orders import document, load
from doorward.packetfilter.text import show
from doorward.packetfilter.writing import lay_out
from doorward.service.filters import FilterNotLoaded, load_filters
from doorward.service.packet_filter_table import table_of

EXIT_DIFFERENT: Final = 1
EXIT_TROUBLE: Final = 2


@click.group("nft", short_help="Show a gateway's packet filter, as the policy makes it.")
def command() -> None:
    """The nftables table `inet doorward` that a transparent gateway's policy compiles to."""


@command.command("show", short_help="Print the table.")
@policy_option
@click.option("--json", "as_json", is_flag=True, help="As libnftables takes it, in place of nft's language.")
def show_command(policy: Path | None, as_json: bool) -> None:
    """Print what would be loaded; `nft -f` takes it as it is. Loads the policy's filters, whose code runs."""
    layout = _layout(policy)
    if as_json:
        click.echo(json.dumps(document(load(layout)), indent=1))
    else:
        click.echo(show(layout), nl=False)


@command.command("diff", short_help="Compare it with the table that is loaded.")
@policy_option
def diff_command(policy: Path | None) -> None:
    """Print what would change. Exit status 0: nothing; 1: something; 2: it cannot be told (rights are missing, say).

    Reading needs CAP_NET_ADMIN. What comes and goes (openings, counted packets) is left out.
    """
    layout = _layout(policy)
    try:
        there, wanted = loaded_lines(), wanted_lines(layout)
    except LoadedUnreadable as error:
        fail(str(error), EXIT_TROUBLE)
    found = list(difflib.unified_diff(there, wanted, "loaded", "policy", lineterm="", n=2))
    for line in found:
        click.echo(plain(line))
    raise click.exceptions.Exit(EXIT_DIFFERENT if found else 0)


def _layout(policy: Path | None) -> Layout:
    configuration, _ = read_policy(policy)
    try:
        loaded = load_filters(configuration.filters, configuration.protocols)
    except FilterNotLoaded as error:
        fail(str(error))
    table = table_of(configuration, [found.entry for found in loaded])
    if table is None:
        fail(f"{configuration.path} has no [transparent]: there is nothing for the kernel to do")
    return lay_out(table)
