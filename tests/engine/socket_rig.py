"""Network sockets as filters make them, for tests."""

from __future__ import annotations

from tests.engine.rig import LOOPBACK, Plugin, Rig, entry

from doorward.engine.session import Session
from doorward.engine.sockets.datagram_socket import DatagramSocket
from doorward.engine.sockets.network_socket import NetworkSocket, system_socket
from doorward.engine.system import NOBODY
from doorward.policy.model import Action, PortRange, Rule

# The filter that makes the firewall's own.
MINE = entry(Plugin("mine", []))
# Whoever listens for itself needs a rule for that.
INBOUND = Rule("come in", Action.ALLOW, to_networks=LOOPBACK, ports=(PortRange("tcp-in", 0, 65_535),))


def users(rig: Rig, user: str | None = None, session: Session | None = None) -> NetworkSocket:
    """In a client's name."""
    made = (session or rig.engine.sessions.get("127.0.0.1", user)).create_network_socket()
    assert isinstance(made, NetworkSocket)
    return made


def users_udp(rig: Rig, session: Session | None = None) -> DatagramSocket:
    """The same, UDP."""
    made = (session or rig.engine.sessions.get("127.0.0.1", None)).create_network_socket("udp")
    assert isinstance(made, DatagramSocket)
    return made


def nobodys(rig: Rig) -> Session:
    """What a filter has for its system sockets."""
    return rig.engine.sessions.private(NOBODY, None, frozenset())


def systems(rig: Rig, session: Session | None = None) -> NetworkSocket:
    """The firewall's own, made by the filter `mine`."""
    made = system_socket(rig.engine, session or nobodys(rig), "tcp", MINE)
    assert isinstance(made, NetworkSocket)
    return made


def systems_udp(rig: Rig, session: Session | None = None) -> DatagramSocket:
    """The same, UDP."""
    made = system_socket(rig.engine, session or nobodys(rig), "udp", MINE)
    assert isinstance(made, DatagramSocket)
    return made
