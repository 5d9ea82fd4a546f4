"""Where a client wants to go, as what it is."""

from __future__ import annotations

from typing import Final, NamedTuple

from doorward.api.errors import BadArgument
from doorward.policy.address import BadHost, canonical, parse_host
from doorward.policy.model import PORT_MAX, IPAddress

ANY_PEER: Final = "*"


class Target(NamedTuple):
    """A name or an address, and a port. Of `host` and `address` one is set.

    Both are where a caught program connects to an address that it was told for a name: that address is judged under
    that name, and no other is dialled. An upstream is given the name, as it is for who asked by name.

    Where the firewall listens, it is the peer that arrives and the port it arrives at; before that neither is set.
    """

    host: str | None
    address: IPAddress | None
    port: int

    def __str__(self) -> str:
        if self.address is None:
            return f"{self.host or ANY_PEER}:{self.port}"
        where = (
            f"[{self.address}]:{self.port}" if self.address.version == 6 else f"{self.address}:{self.port}"
        )
        return where if self.host is None else f"{self.host} ({where})"


def target_of(host: str | IPAddress, port: int) -> Target:
    """The target that a client wrote: disguised addresses become what they are. Raises BadHost (policy.address)."""
    meant = parse_host(host) if isinstance(host, str) else host
    if isinstance(meant, str):
        return Target(meant, None, port)
    return Target(None, canonical(meant), port)


def checked_target(host: str, port: int) -> Target:
    """The target that a filter asks for. Raises BadArgument."""
    if not 0 < port <= PORT_MAX:
        raise BadArgument(f"{port} is no port")
    try:
        return target_of(host, port)
    except BadHost as error:
        raise BadArgument(error.detail) from None
