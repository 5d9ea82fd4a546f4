"""`[upstreams.NAME]` and `[[route]]` as they are written; see `document`, of which they are a part."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from doorward.config.texts import Label, Listed, Text


class UpstreamTable(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Another firewall or proxy, through which connections may go."""

    kind: Annotated[Literal["socks5", "http"], Meta(description="What it speaks: SOCKS5, or HTTP CONNECT.")]
    address: Annotated[
        Text,
        Meta(
            description="Its name or address, with port; a name is looked up whenever a connection is made.",
            examples=["proxy.example:1080", "[2001:db8::1]:3128"],
        ),
    ]
    tls: Annotated[bool, Meta(description="Speak to it through TLS.")] = False
    server_name: (
        Annotated[
            Text, Meta(description="The name its certificate must have. Default: the host of `address`.")
        ]
        | UnsetType
    ) = UNSET
    ca_file: (
        Annotated[
            Text, Meta(description="Certificates (PEM) that may vouch for it. Default: those of the system.")
        ]
        | UnsetType
    ) = UNSET
    certificate: (
        Annotated[Text, Meta(description="Our own certificate (PEM), for an upstream that wants one.")]
        | UnsetType
    ) = UNSET
    key: (
        Annotated[Text, Meta(description="The key of `certificate`, if it stands in another file.")]
        | UnsetType
    ) = UNSET
    verify: Annotated[
        bool,
        Meta(description="Check its certificate. `false` lets anybody in between pass for the upstream."),
    ] = True
    user: Annotated[Text, Meta(description="Who we are to it.")] | UnsetType = UNSET
    password_file: (
        Annotated[Text, Meta(description="A file with the password as its only line, readable by us alone.")]
        | UnsetType
    ) = UNSET
    password: (
        Annotated[str, Meta(description="The password itself; better in a file of its own.")] | UnsetType
    ) = UNSET
    through: (
        Annotated[Label, Meta(description="Another upstream, through which this one is reached.")] | UnsetType
    ) = UNSET
    send: Annotated[
        Literal["address", "name"],
        Meta(description="What it is asked for: the address that was judged, or the name the client gave."),
    ] = "address"


class RouteTable(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A way for some connections. Routes are tried in order, the first full match decides; without one: direct."""

    name: Annotated[str, Meta(min_length=1, max_length=200, description="What the log calls it; unique.")]
    via: Annotated[
        Listed,
        Meta(
            description='Upstreams in the order in which they are tried; "direct" may stand last. '
            "Nothing goes direct that is not listed here."
        ),
    ]
    protocols: Annotated[Listed, Meta(description="As in rules. Default: every protocol.")] | UnsetType = (
        UNSET
    )
    from_: Annotated[Listed, Meta(description="As in rules. Default: anywhere.")] | UnsetType = msgspec.field(
        name="from", default=UNSET
    )
    to: Annotated[Listed, Meta(description="As in rules. Default: anywhere.")] | UnsetType = UNSET
    users: (
        Annotated[
            Listed, Meta(description="As in rules; a client that has not said who it is does not match.")
        ]
        | UnsetType
    ) = UNSET
