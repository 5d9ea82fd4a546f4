"""The policy file as it is written: its tables, keys, types, defaults and what each key is for.

This is the one place that knows the form of the file; the check, the JSON Schema for editors and the typed
reading all come from here. What the texts mean (a network, a name, a schedule) is judged elsewhere.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec
from msgspec import UNSET, Meta, UnsetType

from doorward.config.model import Limits
from doorward.config.publish_tables import PublishTable
from doorward.config.texts import Label, Listed, Text, UserName
from doorward.config.transparent_tables import TransparentTable
from doorward.config.upstream_tables import RouteTable, UpstreamTable

_L: Final = Limits()
DAY_S: Final = 86_400
COUNT_MAX: Final = 2**53
"""The largest whole number that every reader of JSON keeps exact."""
WORKERS_MAX: Final = 64
"""More processes than most machines have cores; each has its memory, its threads and its own lookups."""


class Table(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A table of the file. A key that is not listed is a mistake, never ignored."""


class ListenTable(Table):
    """Where clients reach the firewall."""

    proxy: Annotated[
        Listed,
        Meta(
            description="Addresses with port for SOCKS4, SOCKS4a, SOCKS5 and HTTP proxying, all on one port.",
            examples=[["127.0.0.1:1080", "[::1]:1080"]],
        ),
    ] = msgspec.field(default_factory=lambda: ["127.0.0.1:1080"])
    workers: Annotated[
        Any,  # a number or a word: `settings.read_workers` judges it
        Meta(
            description="Processes that serve clients, all of one client's connections in the same one; "
            '"auto": one for each core that Doorward may use.',
            extra_json_schema={
                "anyOf": [{"type": "integer", "minimum": 1, "maximum": WORKERS_MAX}, {"const": "auto"}]
            },
        ),
    ] = 1


class ControlTable(Table):
    """The operator's channel."""

    path: Annotated[
        Text, Meta(description="Unix socket for `doorward` commands; relative to this file's directory.")
    ] = "var/doorward.sock"


class LogTable(Table):
    """Where records go and how many are kept."""

    path: Annotated[Text, Meta(description="The log store; relative to this file's directory.")] = (
        "var/doorward.db"
    )
    size_max_mb: Annotated[
        int,
        Meta(ge=4, le=2**30, description="Size of all files together, in MiB; the oldest records go first."),
    ] = 2048
    keep_days: Annotated[int, Meta(ge=1, le=36_500, description="Records older than this many days go.")] = 90
    on_failure: Annotated[
        Literal["closed", "open"],
        Meta(description="While records cannot be written: refuse new connections (closed), or not (open)."),
    ] = "closed"


class ProtocolTable(Table):
    """A protocol: the ports it stands for."""

    ports: Annotated[
        Listed, Meta(description="Ports such as tcp/443, udp/53, tcp/8000-8999 or tcp-in/5000-5100.")
    ]


class ScheduleTable(Table):
    """Times of the week, local time."""

    days: Annotated[Listed, Meta(description="Days such as mon-fri or sat.")] = msgspec.field(
        default_factory=lambda: ["mon-sun"]
    )
    hours: Annotated[
        Listed, Meta(description="Hours such as 07:00-18:00; 22:00-06:00 ends on the next day.")
    ] = msgspec.field(default_factory=lambda: ["00:00-24:00"])


class UserTable(Table):
    """Someone who may identify themselves."""

    password: Annotated[Text, Meta(description="An argon2 hash, as `doorward user add` makes it.")]
    groups: Annotated[list[Label], Meta(description="Groups this user belongs to.")] = []


class FilterTable(Table):
    """An application filter, in the order in which filters are called."""

    name: Annotated[Label, Meta(description="What the log calls it; unique.")]
    use: Annotated[
        Text,
        Meta(
            description="A Python file, relative to this file's directory, or the name of an installed filter."
        ),
    ]
    protocols: (
        Annotated[Listed, Meta(description="Protocols to join; left out, the filter's own interest decides.")]
        | UnsetType
    ) = UNSET
    fail: Annotated[
        Literal["closed", "open"],
        Meta(description="When the filter fails: close its connection (closed), or go on without it (open)."),
    ] = "closed"
    settings: Annotated[dict[str, Any], Meta(description="Handed to the filter as they are.")] = {}


SettingsOrFalse: TypeAlias = Annotated[
    Any, Meta(extra_json_schema={"anyOf": [{"type": "object"}, {"const": False}]})
]


class RuleTable(Table):
    """A rule. Rules are tried in order, the first full match decides, and what no rule allows is denied."""

    name: Annotated[
        str,
        Meta(
            min_length=1, max_length=200, description="What the log and `doorward explain` call it; unique."
        ),
    ]
    action: Annotated[Literal["allow", "deny"], Meta(description="What happens to what the rule matches.")]
    protocols: Annotated[
        Listed,
        Meta(
            description="Names of protocols, ports such as tcp/8000-8999, or ports on which the firewall may listen "
            'for the client: tcp-in/5000-5100, tcp-in. "any" alone is everything; to allow, all but the latter.'
        ),
    ]
    from_: (
        Annotated[
            Listed,
            Meta(
                description="Where clients are: network:NAME, an address, a range or a network. Default: anywhere."
            ),
        ]
        | UnsetType
    ) = msgspec.field(name="from", default=UNSET)
    to: (
        Annotated[
            Listed,
            Meta(
                description="Destinations: network:NAME, domain:NAME, an address, a range, a network, "
                "or a name such as example.org, *.example.org (below it) or .example.org (both). Default: anywhere."
            ),
        ]
        | UnsetType
    ) = UNSET
    users: (
        Annotated[Listed, Meta(description="Users, or groups as group:NAME. Default: anyone, known or not.")]
        | UnsetType
    ) = UNSET
    when: Annotated[Listed, Meta(description="Names of schedules. Default: always.")] | UnsetType = UNSET
    process: (
        Annotated[
            Listed,
            Meta(
                description="Programs that `doorward run` has launched, by file name (git) or whole path "
                "(/usr/bin/git); nothing else matches. Default: any client.",
                examples=[["git", "/usr/bin/curl"]],
            ),
        ]
        | UnsetType
    ) = UNSET
    filters: Annotated[
        dict[Label, SettingsOrFalse],
        Meta(
            description="For this rule's traffic, by the name of a filter: settings on top of the filter's own, or "
            "false: the filter leaves it alone."
        ),
    ] = {}


_Seconds: TypeAlias = Annotated[float, Meta(gt=0, le=DAY_S)]
_Count: TypeAlias = Annotated[int, Meta(ge=0, le=COUNT_MAX)]
_Cap: TypeAlias = Annotated[int, Meta(ge=1, le=COUNT_MAX)]


class LimitsTable(Table):
    """Every wait has a deadline, every table a cap."""

    handshake_timeout_s: Annotated[
        _Seconds, Meta(description="Seconds a client has to say what it wants.")
    ] = _L.handshake_timeout_s
    resolve_timeout_s: Annotated[_Seconds, Meta(description="Seconds to look up a name.")] = (
        _L.resolve_timeout_s
    )
    connect_timeout_s: Annotated[
        _Seconds, Meta(description="Seconds to reach a server, all its addresses together.")
    ] = _L.connect_timeout_s
    idle_timeout_s: Annotated[
        _Seconds, Meta(description="Seconds without a byte in either direction before a connection ends.")
    ] = _L.idle_timeout_s
    session_idle_s: Annotated[
        _Seconds, Meta(description="Seconds without a connection before a session is forgotten.")
    ] = _L.session_idle_s
    event_timeout_s: Annotated[_Seconds, Meta(description="Seconds a filter has to answer one event.")] = (
        _L.event_timeout_s
    )
    filter_stall_s: Annotated[
        _Seconds,
        Meta(description="Seconds a filter may hold up everything else before it counts as stalled."),
    ] = _L.filter_stall_s
    drain_timeout_s: Annotated[
        _Seconds, Meta(description="Seconds that live connections have to end when the firewall stops.")
    ] = _L.drain_timeout_s
    header_bytes_max: Annotated[
        int, Meta(ge=1024, le=2**24, description="Bytes of one request's or answer's header.")
    ] = _L.header_bytes_max
    connections_max: Annotated[
        _Count, Meta(description="Connections at a time; 0: as many as descriptors allow.")
    ] = _L.connections_max
    connections_per_client_max: Annotated[
        _Count, Meta(description="Connections at a time from one client address; 0: no limit.")
    ] = _L.connections_per_client_max
    connects_per_minute_per_client_max: Annotated[
        _Count, Meta(description="New connections a minute from one client address; 0: no limit.")
    ] = _L.connects_per_minute_per_client_max
    sessions_max: Annotated[int, Meta(ge=1, le=COUNT_MAX, description="Sessions remembered at a time.")] = (
        _L.sessions_max
    )
    udp_idle_timeout_s: Annotated[
        _Seconds,
        Meta(
            description="Seconds without a datagram either way before a UDP destination is forgotten; "
            "the next datagram to it is judged anew, so a short time costs a verdict and no traffic."
        ),
    ] = _L.udp_idle_timeout_s
    udp_destinations_max: Annotated[
        _Cap,
        Meta(
            description="UDP destinations remembered at a time for one local port of a client: "
            "room for a busy peer-to-peer program, none for a sweep of the address space."
        ),
    ] = _L.udp_destinations_max
    udp_mappings_per_client_max: Annotated[
        _Cap,
        Meta(
            description="Local UDP ports at a time for one client address; the oldest is closed to admit "
            "a new one, since UDP has no way to say that nobody needs it any more."
        ),
    ] = _L.udp_mappings_per_client_max
    bind_timeout_s: Annotated[
        _Seconds,
        Meta(
            description="Seconds a port that the firewall listens on for a client waits for its peer; "
            "two minutes is what SOCKS clients have always been promised."
        ),
    ] = _L.bind_timeout_s
    binds_per_client_max: Annotated[
        _Cap,
        Meta(
            description="Ports on which the firewall listens at a time for one client address; each is "
            "a port taken from everybody, and programs need one for each transfer."
        ),
    ] = _L.binds_per_client_max
    grant_timeout_s: Annotated[
        _Seconds,
        Meta(
            description="Seconds in which a further connection that a filter announced must come, "
            "unless the filter says otherwise."
        ),
    ] = _L.grant_timeout_s
    grants_max_per_session: Annotated[
        _Cap,
        Meta(
            description="Further connections that filters may have announced at a time in one session; "
            "a client that only ever announces them meets this."
        ),
    ] = _L.grants_max_per_session
    bytes_max_per_direction: Annotated[
        _Count, Meta(description="Bytes one connection may carry each way; 0: no limit.")
    ] = _L.bytes_max_per_direction
    bytes_per_second: Annotated[
        _Count, Meta(description="Bytes a second of each connection, each way; 0: no limit.")
    ] = _L.bytes_per_second


class Document(Table):
    """A Doorward policy."""

    listen: Annotated[ListenTable, Meta(description="Where clients reach the firewall.")] = msgspec.field(
        default_factory=ListenTable
    )
    control: Annotated[ControlTable, Meta(description="The operator's channel.")] = msgspec.field(
        default_factory=ControlTable
    )
    log: Annotated[LogTable, Meta(description="Where records go and how many are kept.")] = msgspec.field(
        default_factory=LogTable
    )
    networks: Annotated[
        dict[Label, Listed], Meta(description="Named networks: addresses, ranges a-b, or networks.")
    ] = {}
    domains: Annotated[
        dict[Label, Listed],
        Meta(description="Named sets of host names: example.org, *.example.org, .example.org."),
    ] = {}
    protocols: Annotated[
        dict[Label, ProtocolTable], Meta(description="Named protocols; a built-in one may be defined anew.")
    ] = {}
    schedules: Annotated[dict[Label, ScheduleTable], Meta(description="Named times of the week.")] = {}
    users: Annotated[dict[UserName, UserTable], Meta(description="Who may identify themselves.")] = {}
    groups: Annotated[
        dict[Label, list[UserName]], Meta(description="Further members of groups, by user name.")
    ] = {}
    filter: Annotated[list[FilterTable], Meta(description="Application filters, in calling order.")] = []
    limits: Annotated[LimitsTable, Meta(description="Deadlines and caps.")] = msgspec.field(
        default_factory=LimitsTable
    )
    rule: Annotated[
        list[RuleTable], Meta(description="The rules, in the order in which they are tried.")
    ] = []
    upstreams: Annotated[
        dict[Label, UpstreamTable], Meta(description="Other firewalls, through which connections may go.")
    ] = {}
    route: Annotated[
        list[RouteTable], Meta(description="Which connections go through which upstreams, in order.")
    ] = []
    publish: Annotated[
        list[PublishTable], Meta(description="Servers inside that the firewall lets others reach.")
    ] = []
    transparent: (
        Annotated[
            TransparentTable, Meta(description="Machines that route through this one, and know of no proxy.")
        ]
        | UnsetType
    ) = UNSET
