"""What a policy file says, once it has passed every check: the configuration that a firewall runs on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from ssl import SSLContext
from typing import Any, Literal

from doorward.policy.evaluation import Policy
from doorward.policy.model import IPAddress, PortRange, Protocols
from doorward.policy.routes import Routes


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """One address to listen on; `host` is a literal IPv4 or IPv6 address. Port 0 lets the kernel choose."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class LogSettings:
    """Where records go and how many are kept.

    The store is a row of files; a new one begins when the current one reaches `file_bytes_max`, and the oldest
    goes when all of them pass `total_bytes_max` or its youngest record is older than `keep_days`.
    `on_failure` says what new connections meet while records cannot be written: `closed` refuses them.
    """

    path: Path
    file_bytes_max: int = 256 * 2**20
    total_bytes_max: int = 2 * 2**30
    keep_days: int = 90
    on_failure: Literal["closed", "open"] = "closed"


@dataclass(frozen=True, slots=True)
class Limits:
    """Every wait has a deadline, every table a cap. Zero means none where the text says so."""

    handshake_timeout_s: float = 10.0
    resolve_timeout_s: float = 5.0
    connect_timeout_s: float = 15.0
    idle_timeout_s: float = 900.0
    session_idle_s: float = 300.0
    event_timeout_s: float = 5.0
    filter_stall_s: float = 2.0
    drain_timeout_s: float = 30.0
    header_bytes_max: int = 65_536
    connections_max: int = 0  # 0: as many as the descriptors allow
    connections_per_client_max: int = 0  # 0: no limit of its own
    connects_per_minute_per_client_max: int = 0  # 0: no limit
    sessions_max: int = 65_536
    udp_idle_timeout_s: float = 60.0
    udp_destinations_max: int = 512  # of one mapping
    udp_mappings_per_client_max: int = 160
    bind_timeout_s: float = 120.0  # what the SOCKS4 memo gives the peer of a BIND
    binds_per_client_max: int = 64
    grant_timeout_s: float = 60.0
    grants_max_per_session: int = 256
    bytes_max_per_direction: int = 0  # 0: no limit
    bytes_per_second: int = 0  # each direction of each connection; 0: no limit


@dataclass(frozen=True, slots=True)
class User:
    """Someone who may identify themselves. `password` is an argon2 hash in its usual text form."""

    name: str
    password: str
    groups: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class RuleSetting:
    """What one rule says to one filter, and where: settings that overlay the filter's own, or None: leave it alone."""

    rule: str
    settings: Mapping[str, Any] | None
    line: int = 0


@dataclass(frozen=True, slots=True)
class FilterSetting:
    """One `[[filter]]`: `use` is a file (already absolute) or the name of an installed filter.

    `protocols` None leaves the association to the filter's own interest. `settings` is handed to the filter; `rules`
    holds what rules say to it, in their order.
    """

    name: str
    use: str
    line: int = 0
    protocols: tuple[PortRange, ...] | None = None
    protocol_names: tuple[str, ...] = ()
    fail: Literal["closed", "open"] = "closed"
    settings: Mapping[str, Any] = field(default_factory=dict)
    rules: tuple[RuleSetting, ...] = ()


@dataclass(frozen=True, slots=True)
class UpstreamTls:
    """TLS towards an upstream. `context` holds the certificates as they were when the policy was read."""

    server_name: str
    context: SSLContext


@dataclass(frozen=True, slots=True)
class Upstream:
    """One `[upstreams.NAME]`. `host` is an address, or a name to look up; `password` is never shown.

    `through` is the upstream by which this one is reached. `send` says what it is asked for.
    """

    name: str
    kind: Literal["socks5", "http"]
    host: str | IPAddress
    port: int
    line: int = 0
    tls: UpstreamTls | None = None
    user: str | None = None
    password: str = field(default="", repr=False)
    through: str | None = None
    send: Literal["address", "name"] = "address"


@dataclass(frozen=True, slots=True)
class Configuration:
    """One whole policy file, checked. `revision` is a short digest of its text."""

    path: Path
    revision: str
    listen: tuple[ListenAddress, ...]
    control_path: Path
    log: LogSettings
    limits: Limits
    protocols: Protocols
    users: Mapping[str, User]
    filters: tuple[FilterSetting, ...]
    policy: Policy
    upstreams: Mapping[str, Upstream] = field(default_factory=dict)
    routes: Routes = field(default_factory=Routes)
