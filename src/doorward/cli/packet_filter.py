"""`doorward packet-filter`: a gateway's helper, the only part that has rights over the kernel's tables."""

from __future__ import annotations

import pwd
from pathlib import Path

import click

from doorward.cli.common import EXIT_UNAVAILABLE, fail, plain
from doorward.packetfilter.helper import HelperUnavailable
from doorward.packetfilter.nft import NftRefused


@click.command("packet-filter", short_help="Own the packet filter for a transparent gateway.")
@click.option(
    "--socket",
    "path",
    type=click.Path(path_type=Path),
    required=True,
    metavar="PATH",
    help="Where the service finds it: transparent.packet_filter of the policy.",
)
@click.option(
    "--user", required=True, metavar="NAME", help="The user, by name or number, that the service runs as."
)
def command(path: Path, user: str) -> None:
    """Load and keep the nftables table `inet doorward` for the service, which needs no rights over it then.

    Needs CAP_NET_ADMIN, and gives up everything else. When it ends, the table stays: closed for what needs the service.
    """
    from doorward.service.packet_filter_helper import serve

    try:
        serve(path, _number(user), lambda text: click.echo(plain(text), err=True))
    except (HelperUnavailable, NftRefused) as error:
        fail(str(error), EXIT_UNAVAILABLE)


def _number(user: str) -> int:
    if user.isdecimal() and len(user) < 11:
        return int(user)
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        raise click.BadParameter(f'there is no user "{user}"', param_hint="--user") from None
