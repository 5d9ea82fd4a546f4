"""Filters between two scripted peers, run by the engine's own chain: what each side received, how it ended, why.

No wire, no policy, no record, no watchdog thread. A filter that blocks the loop blocks the test. As on a wire, a
reset destroys what its receiver has not read yet.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Sequence
from typing import Final, NamedTuple

from doorward.api.contracts import Priority
from doorward.api.errors import BadContext, DoorwardError, LinkError, PeerReset, Refuse, Terminating
from doorward.api.events import ConnectEvent
from doorward.api.filters import ApplicationFilter, DataFilter
from doorward.engine.chain import Attached, Chain, ChainFailed
from doorward.engine.joint import JointEnd, joint
from doorward.engine.session import Session
from doorward.engine.supervision import Holder, Watchdog
from doorward.testing.peer import ConversationBroken, Line, Peer

TIMEOUT_S: Final = 5.0
OUR_ADDRESS: Final = ("192.0.2.254", 40000)


class Outcome(NamedTuple):
    """How a conversation went.

    `end` is `closed`, or the reason that ended it. `verdict` is `denied` (Refuse) or `failed`, and `filter` the
    class that did; both None if no filter ended it. `error` is what it raised.
    """

    client_received: bytes
    server_received: bytes
    end: str
    verdict: str | None = None
    filter: str | None = None
    error: BaseException | None = None


class Asked(NamedTuple):
    """What an application filter made of a connect event."""

    denied: str | None
    attached: tuple[DataFilter, ...]


class _Decision(NamedTuple):
    reason: str = "rule_allow"
    rule: str | None = "a rule of the test"
    policy: str = "test"


class _Connection:
    """What filters are given. Fulfils `api.Connection`."""

    def __init__(self, harness: FilterHarness, *, handling: bool) -> None:
        self.id = 1
        self.session = harness.session
        self.decision = _Decision()
        self.host = harness.host
        self.port = harness.port
        self.protocol = harness.protocol
        self.external_peer_name = harness.address, harness.port
        self.external_socket_name = OUR_ADDRESS
        self.attached: list[Attached] = []
        self.denied: str | None = None
        self.wires: tuple[JointEnd, ...] = ()
        self.killed = False
        self._handling = handling

    def attach_data_filter(
        self, data_filter: DataFilter, priority: Priority | None = None, context: object = None
    ) -> None:
        if not self._handling:
            raise BadContext("legal only inside on_connect")
        data_filter.context = context
        place = data_filter.priority if priority is None else priority
        self.attached.append(Attached(place, data_filter, type(data_filter).__name__))

    def deny(self, reason: str = "denied_by_filter") -> None:
        if not self._handling:
            raise BadContext("legal only inside on_connect")
        self.denied = reason

    def kill(self) -> None:
        self.killed = True
        for wire in self.wires:
            wire.abort(Terminating("killed"))


class FilterHarness:
    """One client, one server, the same for every conversation. Keep it simple: make a new one for another case."""

    def __init__(
        self,
        *,
        host: str | None = "server.example",
        address: str = "192.0.2.1",
        port: int = 80,
        protocol: str | None = None,
        client_address: str = "192.0.2.7",
        user: str | None = None,
        groups: frozenset[str] = frozenset(),
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self.host = host
        self.address = str(ipaddress.ip_address(address))
        self.port = port
        self.protocol = protocol
        self.session = Session(1, client_address, user, groups)
        self.timeout_s = timeout_s

    async def ask(self, application_filter: ApplicationFilter) -> Asked:
        """Hand it a connect event, and say what it did. Raises what it raises. What it attached goes into `run`."""
        connection = _Connection(self, handling=True)
        event = ConnectEvent(connection, self.host, self.address, self.port, self.protocol)
        async with asyncio.timeout(self.timeout_s):
            await application_filter.session_filter(self.session).on_connect(event)
        in_order = sorted(connection.attached, key=lambda a: a.priority)
        return Asked(connection.denied, tuple(item.data_filter for item in in_order))

    async def run(
        self, *filters: DataFilter, client: Sequence[Line] = (), server: Sequence[Line] = ()
    ) -> Outcome:
        """Both scripts through the filters, in the order of their priorities. Raises ConversationBroken."""
        assert filters, "there is nothing to try"
        (client_socket, internal), (external, server_socket) = joint(), joint()
        peers = Peer("the client", client_socket, client), Peer("the server", server_socket, server)
        connection = _Connection(self, handling=False)
        connection.wires = internal, external
        attached = [Attached(f.priority, f, type(f).__name__) for f in filters]
        holder = Holder()
        chain = Chain(connection, attached, internal, external, Watchdog(self.timeout_s), holder)
        loop = asyncio.get_running_loop()
        carrying = loop.create_task(_carry(chain, connection))
        tasks = [carrying, *(loop.create_task(peer.play()) for peer in peers)]
        try:
            await self._wait(tasks, peers)
        finally:
            holder.end()
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        outcome = carrying.result()
        at_client, at_server = (bytes(peer.received) for peer in peers)
        return outcome._replace(client_received=at_client, server_received=at_server)

    async def _wait(self, tasks: Sequence[asyncio.Task[Outcome | None]], peers: Sequence[Peer]) -> None:
        done, waiting = await asyncio.wait(tasks, timeout=self.timeout_s, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            await task
        if waiting:
            raise ConversationBroken("nothing moves: " + "; ".join(peer.where for peer in peers))


async def _carry(chain: Chain, connection: _Connection) -> Outcome:
    """The chain to its end, as the engine does it."""
    internal, external = connection.wires
    outcome = Outcome(b"", b"", "closed")
    try:
        leftover = await chain.run()
        if internal.open and external.open:
            await chain.pass_rest(leftover)
    except ChainFailed as failed:
        error, name = failed.failure
        outcome = outcome._replace(end=error.reason)
        if not isinstance(error, LinkError | Terminating):
            verdict = "denied" if isinstance(error, Refuse) else "failed"
            outcome = outcome._replace(verdict=verdict, filter=name, error=failed.cause)
    except DoorwardError as error:
        outcome = outcome._replace(end=error.reason)
    if connection.killed:
        outcome = outcome._replace(end="killed")
    for wire in (internal, external):
        if outcome.end == "closed":
            wire.close_now()
        else:
            wire.abort(PeerReset(f"reset: {outcome.end}"))
    return outcome
