"""Where a connection comes from: what the front end knows and the engine need not ask about."""

from __future__ import annotations

from typing import NamedTuple

from doorward.api.filters import ClientKind


class Origin(NamedTuple):
    """`entry` goes on record (`socks5`, `http-connect`, …); `application` is the protocol, where it is certain."""

    entry: str
    kind: ClientKind
    client_address: str
    client_port: int
    application: str | None = None
