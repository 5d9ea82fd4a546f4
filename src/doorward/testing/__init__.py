"""The kit for filter authors, and for us: conversations with a filter as data, no socket and no process.

    harness = FilterHarness()
    outcome = await harness.run(Shout(), client=[Send(b"hi"), Expect(b"HO")], server=[Expect(b"HI"), Send(b"ho")])
    assert outcome.end == "closed"

    asked = await harness.ask(Gate())           # what an application filter makes of a connect
    assert asked.denied == "bad_name"
    [given] = harness.grants                    # what was promised in the session's name

Nothing in the product imports this.
"""

from doorward.testing.clock import Clock
from doorward.testing.datagrams import DatagramOutcome, FromClient, FromServer, ToClient, ToServer
from doorward.testing.firewall import ClearTLS, ScriptedFirewall
from doorward.testing.harness import FilterHarness
from doorward.testing.peer import (
    ConversationBroken,
    Do,
    End,
    Expect,
    ExpectEnd,
    ExpectReset,
    Peer,
    Reset,
    Send,
    socket_pair,
)
from doorward.testing.promises import Given
from doorward.testing.results import Asked, Outcome
from doorward.testing.session import ScriptedSession
from doorward.testing.sockets import ScriptedDatagramSocket, ScriptedSocket

__all__ = [
    "Asked",
    "ClearTLS",
    "Clock",
    "ConversationBroken",
    "DatagramOutcome",
    "Do",
    "End",
    "Expect",
    "ExpectEnd",
    "ExpectReset",
    "FilterHarness",
    "FromClient",
    "FromServer",
    "Given",
    "Outcome",
    "Peer",
    "Reset",
    "ScriptedDatagramSocket",
    "ScriptedFirewall",
    "ScriptedSession",
    "ScriptedSocket",
    "Send",
    "ToClient",
    "ToServer",
    "socket_pair",
]
