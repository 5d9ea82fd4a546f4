"""`[[publish]]` as it is written; see `document`, of which it is a part."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import UNSET, Meta, UnsetType

from doorward.config.texts import Label, Listed, Text

HOUR_S = 3600
PORT_MAX = 65_535

Settings: TypeAlias = Annotated[
    Any, Meta(extra_json_schema={"anyOf": [{"type": "object"}, {"const": False}]})
]
_Seconds: TypeAlias = Annotated[float, Meta(gt=0, le=HOUR_S)]


class HeaderTable(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The PROXY protocol: who a connection is from, said in front of its first byte."""

    read: (
        Annotated[
            Listed,
            Meta(
                description="Proxies that are trusted to say it, and must; nobody else is served at this address. "
                "network:NAME, an address, a range or a network."
            ),
        ]
        | UnsetType
    ) = UNSET
    write: (
        Annotated[Literal["v1", "v2"], Meta(description="Say it to the server, in this version.")] | UnsetType
    ) = UNSET


class HealthTable(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Probes of the servers: a TCP connection that is closed again."""

    interval_s: Annotated[_Seconds, Meta(description="Seconds between two probes of one server.")] = 10.0
    timeout_s: Annotated[_Seconds, Meta(description="Seconds that a server has to answer one.")] = 2.0
    port: (
        Annotated[
            int,
            Meta(
                ge=1,
                le=PORT_MAX,
                description="The TCP port that is probed. Default: the one that the server serves.",
            ),
        ]
        | UnsetType
    ) = UNSET


class PublishTable(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A server inside that others may reach, at an address of ours."""

    name: Annotated[
        str,
        Meta(min_length=1, max_length=200, description="What the log calls it; unique, among rules too."),
    ]
    listen: Annotated[
        Listed,
        Meta(
            description="Where it is reached: transport, address of ours, port.",
            examples=[["tcp/0.0.0.0:443", "tcp/[::]:443"], ["udp/192.0.2.1:53"]],
        ),
    ]
    to: Annotated[
        Listed,
        Meta(
            description="The servers, by address and port.",
            examples=[["10.0.0.5:8443", "10.0.0.6:8443"], ["[2001:db8::5]:8443"]],
        ),
    ]
    from_: Annotated[
        Listed,
        Meta(
            description="Who may come: network:NAME, an address, a range or a network. "
            'Everybody is ["0.0.0.0/0", "::/0"].'
        ),
    ] = msgspec.field(name="from")
    when: Annotated[Listed, Meta(description="Names of schedules. Default: always.")] | UnsetType = UNSET
    protocol: (
        Annotated[
            Text,
            Meta(
                description="What it speaks, which decides what filters join. Default: by the port of `listen`."
            ),
        ]
        | UnsetType
    ) = UNSET
    mode: Annotated[
        Literal["full-proxy", "keep-source"],
        Meta(
            description="Whose address the server sees: the firewall's (full-proxy), or the client's (keep-source)."
        ),
    ] = "full-proxy"
    proxy_protocol: (
        Annotated[HeaderTable, Meta(description="PROXY headers, read from proxies or written to the server.")]
        | UnsetType
    ) = UNSET
    balance: Annotated[
        Literal["first", "client"],
        Meta(description="Which server: the first one that is well (first), or each client's own (client)."),
    ] = "first"
    health: (
        Annotated[HealthTable, Meta(description="Probe the servers. Default: by their clients alone.")]
        | UnsetType
    ) = UNSET
    filters: Annotated[
        dict[Label, Settings],
        Meta(
            description="For this traffic, by the name of a filter: settings on top of the filter's own, or "
            "false: the filter leaves it alone."
        ),
    ] = {}
