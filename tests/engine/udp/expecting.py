"""A mapping to which a filter has promised that peers may come."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.engine.rig import LOOPBACK, Rig, wait_for
from tests.engine.udp.rig import Far, UdpRig, begin, hearing

from doorward.api import (
    Grant,
    IpFilter,
)
from doorward.engine.association import FilterEntry
from doorward.policy.model import Action, PortRange, Protocols, Rule

MakeRig = Callable[..., Rig]

HERE = IpFilter("127.0.0.1")


class World:
    """A mapping that has spoken to the one server that rules allow, and a promise made then."""

    def __init__(self, udp: UdpRig, server: Far, grants: list[Grant]) -> None:
        self.udp = udp
        self.server = server
        self._grants = grants

    @property
    def grant(self) -> Grant:
        [grant] = self._grants
        return grant

    @property
    def ours(self) -> tuple[str, int]:
        """Where peers reach the mapping."""
        return "127.0.0.1", self.udp.mapping.outers[4].name[1]

    async def comes(self, peer: Far, payload: bytes = b"first") -> None:
        """It sends, the client hears it, and may answer."""
        peer.send(payload, self.ours)
        await self.udp.heard(payload, peer.name)
        self.udp.say(b"answer", peer.target)
        data, source = await peer.receive()
        assert (data, source[1]) == (b"answer", self.ours[1])

    async def is_a_stranger(self, peer: Far) -> None:
        before = self.udp.mapping.strangers
        peer.send(b"let me in", self.ours)
        await wait_for(lambda: self.udp.mapping.strangers == before + 1, "it is counted")
        assert self.udp.client.heard == []


async def promised(make_rig: MakeRig, *others: FilterEntry, near: Far | None = None, **how: Any) -> World:
    """Whatever `how` says in place of one peer at 127.0.0.1 within a minute, as long as the mapping lives.

    Rules allow `near` and call it chat; another filter that does not ask for it hears of nothing.
    """
    grants: list[Grant] = []
    server = near or Far()

    async def promise(event: Any) -> None:
        if event.is_secondary:
            return
        connection = event.connection
        how.setdefault("parent", connection)
        how.setdefault("ip_filter", HERE)
        name = connection.external_socket_name
        grants.append(connection.session.retroactive_allow_bind("udp", name, **how))

    protocols = Protocols({"chat": (PortRange("udp", server.name[1], server.name[1]),)})
    rule = Rule("chat only", Action.ALLOW, to_networks=LOOPBACK, ports=protocols.ports["chat"])
    rig = make_rig(hearing([], udp_destination=promise), *others, rules=[rule], protocols=protocols)
    udp = await begin(rig)
    udp.keep(server)
    await udp.exchange(server)
    return World(udp, server, grants)
