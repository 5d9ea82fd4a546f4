"""A client's association with the filter in force, and a TFTP server that the test plays, at whatever port it has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from msgspec.structs import replace
from tests.engine.rig import LOOPBACK, Rig, wait_for
from tests.engine.udp.rig import Far, UdpRig, begin

from doorward.engine.association import FilterEntry
from doorward.filters.tftp import TftpFilter
from doorward.filters.tftp.plugin import read_settings
from doorward.policy.model import Action, PortRange, Protocols, Rule

READ: Final = b"\0\1file\0octet\0"
WRITE: Final = b"\0\2file\0octet\0"
DATA: Final = b"\0\3\0\1the whole file"
ACK: Final = b"\0\4\0\1"
ACK_0: Final = b"\0\4\0\0"
ERROR: Final = b"\0\5\0\1File not found\0"


class Talk:
    """One client's association and its server."""

    def __init__(self, udp: UdpRig, server: Far) -> None:
        self.udp = udp
        self.server = server

    @property
    def grants(self) -> int:
        return self.udp.rig.engine.grants.alive

    @property
    def noted(self) -> list[str]:
        """What stands on record of what was refused."""
        return [v.reason for v in self.udp.connection.verdicts if v.verdict == "noted"]

    async def asks(self, request: bytes = READ) -> tuple[str, int]:
        """It reaches the server as it is. Returns where the server can answer it."""
        self.udp.say(request, self.server.target)
        data, ours = await self.server.receive()
        assert data == request
        return ours

    async def is_refused(self, packet: bytes, reason: str) -> None:
        """It is noted, and the server hears nothing of it."""
        before = len(self.noted)
        assert reason not in self.noted
        self.udp.say(packet, self.server.target)
        await wait_for(lambda: len(self.noted) > before, "it is noted")
        assert self.noted[before:] == [reason]
        assert self.server.is_silent()

    async def answers(self, ours: tuple[str, int], data: bytes = DATA, reply: bytes = ACK) -> Far:
        """A transfer: the server answers from a port of its own, and the client answers that."""
        transfer = self.udp.far(self.server.name[0])
        transfer.send(data, ours)
        await self.udp.heard(data, transfer.name)
        self.udp.say(reply, transfer.target)
        assert await transfer.receive() == (reply, ours)
        return transfer

    async def is_a_stranger(self, peer: Far, ours: tuple[str, int]) -> None:
        """What it sends is counted and dropped."""
        before = self.udp.mapping.strangers
        peer.send(DATA, ours)
        await wait_for(lambda: self.udp.mapping.strangers == before + 1, "it is counted")
        assert self.udp.client.heard == []


async def talking(make_rig: Any, settings: Mapping[str, Any] | None = None, host: str = "127.0.0.1") -> Talk:
    """Rules allow the server's one port, which is called tftp, and nothing else."""
    server = Far(host)
    ports = (PortRange("udp", server.name[1], server.name[1]),)
    plugin = TftpFilter()
    entry = FilterEntry("tftp", plugin, plugin.interest, ports, frozenset({"tftp"}))
    if settings is not None:
        entry = replace(entry, rule_settings={"tftp only": plugin.compile_settings(settings)})
        assert plugin.compile_settings(settings) == read_settings(settings)
    rule = Rule("tftp only", Action.ALLOW, to_networks=LOOPBACK, ports=ports)
    rig: Rig = make_rig(entry, rules=[rule], protocols=Protocols({"tftp": ports}))
    udp = await begin(rig)
    udp.keep(server)
    return Talk(udp, server)
