"""One record: what was asked, what was answered, how much passed, how it ended; and what keeps a store shut."""

from __future__ import annotations

import msgspec


class Record(msgspec.Struct, kw_only=True):
    """One attempt, allowed, denied or failed.

    Times are microseconds since 1970 UTC; durations microseconds. `action` is `allow`, `deny` (policy or a filter
    refused) or `fail` (allowed, but it could not be carried out). `reason` is the decision's slug; `end` says how a
    carried connection ended, `ended_by` which side did (`internal`, `external`, `ours`). Bytes sent run from the
    client to the server. Text fields may hold anything the network said and are escaped by whoever shows them.

    `operation` says what it was about: `connect`; `bind` (the firewall listened for the client; `host` and `address`
    are whom it was expected from, `port` is ours); `accept` (somebody arrived there: `address` and `port` are the
    peer's); `udp` (a mapping, `port` is ours) or `destination` (one far end of it); `resolve` (a name asked for by DNS
    that was refused). None if it never came that far.
    """

    time_us: int
    session: int
    connection: int
    entry: str  # socks4, socks5, http-connect, http, …; as the client came in
    action: str
    reason: str
    rule: str | None = None
    policy: str = ""
    user: str | None = None
    process: str | None = None
    client_address: str
    client_port: int
    host: str | None = None
    address: str | None = None
    port: int = 0
    transport: str = "tcp"
    protocol: str | None = None
    connect_us: int | None = None
    duration_us: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0
    end: str | None = None
    ended_by: str | None = None
    filters: str | None = None  # JSON: [[filter, verdict, reason], …]
    detail: str | None = None
    operation: str | None = "connect"
    parent: int | None = (
        None  # the connection that it came of: the one that listened for it, or that promised it
    )
    via: str | None = None  # the upstream that it went through


class StoreError(Exception):
    """The store cannot be used; the text is a sentence for the operator and names the file."""


class StoreInUse(StoreError):
    """Another process writes to this store."""


class StoreMissing(StoreError):
    """There is nothing to read at this path."""


class StoreUnknown(StoreError):
    """The file is not a log of ours, or one of a newer version; it is left alone."""
