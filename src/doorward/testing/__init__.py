"""The kit for filter authors, and for us: conversations with a filter as data, no socket and no process.

    harness = FilterHarness()
    outcome = await harness.run(Shout(), client=[Send(b"hi"), Expect(b"HO")], server=[Expect(b"HI"), Send(b"ho")])
    assert outcome.end == "closed"

Nothing in the product imports this.
"""

from doorward.testing.clock import Clock
from doorward.testing.harness import Asked, FilterHarness, Outcome
from doorward.testing.peer import (
    ConversationBroken,
    End,
    Expect,
    ExpectEnd,
    ExpectReset,
    Peer,
    Reset,
    Send,
    socket_pair,
)

__all__ = [
    "Asked",
    "Clock",
    "ConversationBroken",
    "End",
    "Expect",
    "ExpectEnd",
    "ExpectReset",
    "FilterHarness",
    "Outcome",
    "Peer",
    "Reset",
    "Send",
    "socket_pair",
]
