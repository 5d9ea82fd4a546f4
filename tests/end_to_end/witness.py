"""A filter that hears everything and tells it in the operational log, and what a test makes of that."""

from __future__ import annotations

from typing import Any, Final

from tests.end_to_end.running import EVERYTHING_HERE, LISTEN, RunningFirewall, wait_for

WITNESS: Final = """
from doorward.api import (
    ANY, ApplicationFilter, CallError, ClientKind, EventKind, Interest, Scope, SessionFilter)

def peer(connection):
    try:
        return "%s:%d" % connection.external_peer_name
    except CallError:
        return None

class Told(SessionFilter):
    def __init__(self, firewall):
        self.firewall = firewall

    def tell(self, what, connection, **fields):
        self.firewall.log(
            "heard", what=what, connection=connection.id, user=connection.session.user,
            peer=peer(connection), **fields)

    async def on_connect(self, event):
        self.tell("connect", event.connection, host=event.host, address=event.address, port=event.port,
                  secondary=event.is_secondary)

    async def on_udp_destination(self, event):
        self.tell("udp destination", event.connection, port=event.destination.port)

    async def on_bind(self, event):
        self.tell("bind", event.connection, transport=event.transport, address=event.address,
                  port=event.port, secondary=event.is_secondary)

    async def on_listen(self, event):
        self.tell("listen", event.connection, address=event.address, port=event.port)

    async def on_accept(self, event):
        self.tell("accept", event.connection, listening=event.listening.id, remote="%s:%d" % event.remote,
                  secondary=event.is_secondary)

    async def on_resolve(self, event):
        self.firewall.log("heard", what="resolve", name=event.name, address=event.address,
                          before=event.before, results=" ".join(event.results))

    async def on_established(self, event):
        self.tell("established", event.connection, context=repr(event.context))

    async def on_terminating(self, event):
        self.tell("terminating", event.connection, sent=event.bytes_sent, received=event.bytes_received,
                  end=event.end)

class Witness(ApplicationFilter):
    interest = Interest.of(ANY, events=EventKind, clients=ClientKind, scope=Scope.ANY)

    async def start(self, firewall):
        self.firewall = firewall

    def session_filter(self, session):
        return Told(self.firewall)
"""
# Peers of this machine may come to ports that clients have had bound.
CALLED_BACK: Final = """
[[rule]]
name = "called back"
action = "allow"
to = ["127.0.0.0/8"]
protocols = ["tcp-in"]
"""
POLICY: Final = (
    LISTEN
    + '[[filter]]\nname = "witness"\nuse = "witness.py"\n[[filter]]\nname = "mine"\nuse = "mine.py"\n'
    + EVERYTHING_HERE
    + CALLED_BACK
)


def files(mine: str) -> dict[str, str]:
    """The filters of POLICY; `mine` is the text of the second."""
    return {"witness.py": WITNESS, "mine.py": mine}


def heard(firewall: RunningFirewall, *, until: str = "terminating", times: int = 1) -> list[dict[str, Any]]:
    """What the witness has told, once it has told so many of a kind; in order."""

    def look() -> list[dict[str, Any]] | None:
        lines = firewall.events("heard")
        return lines if sum(line["what"] == until for line in lines) >= times else None

    return wait_for(look, f"{times} times {until}")


def said(firewall: RunningFirewall, what: str) -> dict[str, Any]:
    """The first line that the filter `mine` has told under this name."""
    return wait_for(lambda: firewall.events(what), what)[0]
