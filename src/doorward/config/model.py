"""What a policy file says, once it has passed every check: the configuration that a firewall runs on.

Structs, which take a hundredth of the time to define; dataclasses where a field is not to be shown or compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from ssl import SSLContext
from typing import Any, Literal

import msgspec
from msgspec import Struct

from doorward.policy.evaluation import Policy
from doorward.policy.model import IPAddress, IPNetwork, PortRange, Protocols, Window
from doorward.policy.routes import Routes


class ListenAddress(Struct, frozen=True):
    """One address to listen on; `host` is a literal IPv4 or IPv6 address. Port 0 lets the kernel choose."""

    host: str
    port: int


class LogSettings(Struct, frozen=True):
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


class Limits(Struct, frozen=True):
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


class User(Struct, frozen=True):
    """Someone who may identify themselves. `password` is an argon2 hash in its usual text form."""

    name: str
    password: str
    groups: frozenset[str] = frozenset()


class RuleSetting(Struct, frozen=True):
    """What one rule says to one filter, and where: settings that overlay the filter's own, or None: leave it alone."""

    rule: str
    settings: Mapping[str, Any] | None
    line: int = 0


class FilterSetting(Struct, frozen=True):
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
    settings: Mapping[str, Any] = msgspec.field(default_factory=dict)
    rules: tuple[RuleSetting, ...] = ()


class UpstreamTls(Struct, frozen=True):
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


class PublishedAddress(Struct, frozen=True):
    """Where a published server is reached: an address of ours, or one of its own. Ours may have port 0."""

    transport: Literal["tcp", "udp"]
    address: IPAddress
    port: int

    def __str__(self) -> str:
        host = f"[{self.address}]" if self.address.version == 6 else str(self.address)
        return f"{self.transport}/{host}:{self.port}"


class HealthChecks(Struct, frozen=True):
    """How servers are probed: a TCP connect to `port`, or to the port that they serve."""

    interval_s: float
    timeout_s: float
    port: int | None = None


@dataclass(frozen=True, slots=True)
class Published:
    """One `[[publish]]`. `to` is in order, without transports. Where it stands does not make it another one.

    `headers_from`: who must begin with a PROXY header, and then nobody else is served; empty: nobody does.
    """

    name: str
    listen: tuple[PublishedAddress, ...]
    to: tuple[tuple[IPAddress, int], ...]
    sources: tuple[IPNetwork, ...]
    windows: tuple[Window, ...] | None = None
    protocol: str | None = None
    keeps_source: bool = False
    headers_from: tuple[IPNetwork, ...] = ()
    header_version: Literal[1, 2] | None = None  # of the PROXY header that servers get
    balance: Literal["first", "client"] = "first"
    health: HealthChecks | None = None
    line: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Transparent:
    """`[transparent]`: traffic that is taken on its way through this machine.

    `keep_source` lists the destinations that see the client's own address. Only packets that come in by one of the
    `interfaces` and from one of the `networks` are taken. Where it stands does not make it another one.
    """

    interfaces: tuple[str, ...]
    networks: tuple[IPNetwork, ...]
    port: int = 1081  # TCP and UDP
    method: Literal["tproxy", "redirect"] = "tproxy"  # of TCP; UDP comes by tproxy
    udp: bool = True
    dns: Literal["answer", "policy"] = "answer"
    keep_source: tuple[IPNetwork, ...] = ()
    packet_filter: Path | None = (
        None  # the helper's socket; None: the operator's own table leads traffic here
    )
    kernel: Literal["everything", "denials", "nothing"] = (
        "everything"  # what the packet filter may settle by itself
    )
    line: int = field(default=0, compare=False)


class Configuration(Struct, frozen=True):
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
    upstreams: Mapping[str, Upstream] = msgspec.field(default_factory=dict)
    routes: Routes = msgspec.field(default_factory=Routes)
    workers: int | None = 1  # processes that serve clients; None: one for each core
    published: tuple[Published, ...] = ()
    transparent: Transparent | None = None
