"""`[transparent]` as it is written; see `document`, of which it is a part."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from doorward.config.texts import Listed

PORT_MAX = 65_535


class TransparentTable(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Machines that route through this one, and know of no proxy."""

    interfaces: Annotated[
        Listed,
        Meta(
            description="Devices of this machine behind which such machines are; nobody else's traffic is taken.",
            examples=[["lan0"]],
        ),
    ]
    networks: Annotated[
        Listed,
        Meta(
            description="Where they are: network:NAME, an address, a range or a network. "
            "Packets that claim to come from elsewhere are dropped, whatever the rules say."
        ),
    ]
    port: Annotated[
        int,
        Meta(
            ge=1,
            le=PORT_MAX,
            description="The port, TCP and UDP, to which the packet filter leads their traffic; nobody connects to it.",
        ),
    ] = 1081
    method: Annotated[
        Literal["tproxy", "redirect"],
        Meta(
            description="How TCP is led here: with its destination left as it is (tproxy), or changed and remembered "
            "by connection tracking (redirect)."
        ),
    ] = "tproxy"
    udp: Annotated[
        bool,
        Meta(
            description="Whether datagrams come up to the service, too; always by tproxy. If not, only those pass "
            "that the kernel lets through by itself."
        ),
    ] = True
    dns: Annotated[
        Literal["answer", "policy"],
        Meta(
            description="DNS to any server: answered here, so that rules can go by the names that were asked for "
            "(answer), or traffic like any other (policy)."
        ),
    ] = "answer"
    packet_filter: Annotated[
        str,
        Meta(
            description="The socket of `doorward packet-filter`, which then keeps the kernel's packet filter as this "
            "policy wants it. Without it the table is the operator's own."
        ),
    ] = ""
    kernel: Annotated[
        Literal["everything", "denials", "nothing"],
        Meta(
            description="What that packet filter settles by itself where addresses and ports are enough: all of it, "
            "refusals only (so that whatever passes is on record here), or nothing but the built-in guard."
        ),
    ] = "everything"
    keep_source: (
        Annotated[
            Listed,
            Meta(
                description="Destinations that see the client's own address in place of the firewall's: "
                'network:NAME, an address, a range or a network; all of them are ["0.0.0.0/0", "::/0"]. '
                "Default: none."
            ),
        ]
        | UnsetType
    ) = UNSET
