"""The packet filter's helper as a process: rights given up but one, signals, and its end."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Final

from doorward.capture import kernel
from doorward.packetfilter.helper import Helper
from doorward.packetfilter.keeper import Keeper
from doorward.packetfilter.nft import NftRefused, nft

_CAP_NET_ADMIN: Final = 12


def serve(path: Path, user: int, say: Callable[[str], None]) -> None:
    """Until SIGTERM or SIGINT. Raises HelperUnavailable; NftRefused without nft, or without the right to use it."""
    commands = nft()
    try:
        commands.run([{"list": {"tables": None}}])
    except NftRefused as error:
        raise NftRefused(f"no rights over the packet filter (CAP_NET_ADMIN): {error}") from None
    helper = Helper(Keeper(commands), path, user, say)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: helper.stop())
    try:
        kernel.limit_capabilities(frozenset({_CAP_NET_ADMIN}))
        kernel.no_new_privileges()
    except OSError as error:
        helper.close()
        raise NftRefused(f"no rights over the packet filter (CAP_NET_ADMIN): {error.strerror}") from None
    say(f"the packet filter's helper answers user {user} on {path}")
    helper.serve()
