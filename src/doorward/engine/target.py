"""Where a client wants to go, as what it is."""

from __future__ import annotations

from typing import NamedTuple

from doorward.policy.address import canonical, parse_host
from doorward.policy.model import IPAddress


class Target(NamedTuple):
    """A name or an address, and a port. Exactly one of `host` and `address` is set."""

    host: str | None
    address: IPAddress | None
    port: int

    def __str__(self) -> str:
        if self.address is None:
            return f"{self.host}:{self.port}"
        return f"[{self.address}]:{self.port}" if self.address.version == 6 else f"{self.address}:{self.port}"


def target_of(host: str | IPAddress, port: int) -> Target:
    """The target that a client wrote: disguised addresses become what they are. Raises BadHost (policy.address)."""
    meant = parse_host(host) if isinstance(host, str) else host
    if isinstance(meant, str):
        return Target(meant, None, port)
    return Target(None, canonical(meant), port)
