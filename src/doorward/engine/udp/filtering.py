"""The data filters of a mapping: one chain of its own, one for each destination that has some, and their failures.

A filter may send to whomever it likes, and policy is asked about each: nothing widens what the client may reach.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from doorward.api.errors import BadContext, LinkError, OutOfResources, Refuse, ReplyHint, Side, Terminating
from doorward.engine.chain import ChainFailed
from doorward.engine.outcome import Refusal
from doorward.engine.target import target_of
from doorward.engine.udp.chain import DatagramChain
from doorward.engine.udp.destination import Destination, FarEnd, State, socket_address
from doorward.engine.udp.ends import checked_peer
from doorward.policy.model import Verdict

if TYPE_CHECKING:
    from doorward.api.sockets import SocketName
    from doorward.engine.chain import Attached, Failure
    from doorward.engine.extra import Attachable
    from doorward.engine.udp.mapping import Mapping


class Preset:
    """Data filters for a peer that is not spoken to yet."""

    __slots__ = ("attached",)

    def __init__(self) -> None:
        self.attached: list[Attached] = []


class Filters:
    """Of one mapping. `chain` is its own, None without one or when every filter of it has returned."""

    __slots__ = ("_mapping", "_presets", "chain")

    def __init__(self, mapping: Mapping) -> None:
        self._mapping = mapping
        self._presets: dict[SocketName, Preset] = {}
        self.chain: DatagramChain | None = None

    def start(self, attached: list[Attached]) -> None:
        """The mapping's own filters are known, and begin."""
        if not attached:
            return
        connection = self._mapping.connection
        self.chain = DatagramChain(
            connection,
            attached,
            to_external=self._outward,
            to_internal=self._inward,
            peer=None,
            watchdog=connection.engine.watchdog,
            on_failure=self._failed,
            on_returned=self._returned,
        )
        self.chain.start(connection.engine.supervisor)

    def attach(self, destination: Destination) -> None:
        """A destination is open: what is attached to it begins."""
        preset = self._presets.pop(destination.name, None)
        attached = [*(preset.attached if preset is not None else ()), *destination.attached]
        if attached:
            destination.chain = self._chain_of(destination, attached)
            destination.chain.start(self._mapping.connection.engine.supervisor)

    def detach(self, destination: Destination) -> None:
        """Its filters have nothing more to see. Idempotent."""
        chain, destination.chain = destination.chain, None
        destination.attached = []
        if chain is not None:
            self._mapping.dropped += chain.dropped
            chain.close()

    def close(self) -> None:
        """The mapping has ended. Idempotent."""
        chain, self.chain = self.chain, None
        self._presets.clear()
        if chain is not None:
            self._mapping.dropped += chain.dropped
            chain.close()

    def chain_for(self, name: SocketName) -> Attachable:
        """What filters for this peer are attached to. Raises BadContext if it is spoken to already, OutOfResources."""
        name = checked_peer(name)
        mapping, handling = self._mapping, self._mapping.connection.handling
        current = handling.destination if handling is not None else None
        if isinstance(current, Destination) and current.name == name:
            return current
        if _where(name) in mapping.memory.peers:
            raise BadContext(f"{name[0]} port {name[1]} is spoken to already")
        if name not in self._presets and len(self._presets) >= mapping.memory.destinations_max:
            raise OutOfResources("too many peers with filters of their own", side=Side.OURS)
        return self._presets.setdefault(name, Preset())

    def _chain_of(self, destination: Destination, attached: list[Attached]) -> DatagramChain:
        mapping, connection = self._mapping, self._mapping.connection

        def outward(data: bytes, name: SocketName) -> None:
            if name == destination.name:
                mapping.emit(destination, data)
            else:
                self._outward(data, name)

        def inward(data: bytes, name: SocketName) -> None:
            if name == destination.name:
                mapping.from_destination(destination, data)
            else:
                self._inward(data, name)

        def failed(failure: Failure, cause: BaseException) -> None:
            self._destination_failed(destination, failure, cause)

        def returned() -> None:
            destination.chain, mapping.dropped = None, mapping.dropped + chain.dropped
            mapping.let_flow(destination)

        chain = DatagramChain(
            connection,
            attached,
            to_external=outward,
            to_internal=inward,
            peer=destination.name,
            destination=destination,
            watchdog=connection.engine.watchdog,
            on_failure=failed,
            on_returned=returned,
        )
        return chain

    def _outward(self, data: bytes, name: SocketName) -> None:
        """To wherever a filter wants it, if that may be spoken to."""
        peer = self._mapping.memory.peers.get(_where(name))
        destination = peer.current if peer is not None else self._mapping.find(target_of(*name))
        if destination is not None:
            self._mapping.to_destination(destination, data)

    def _inward(self, data: bytes, name: SocketName) -> None:
        """To the client, in whoever's name a filter says."""
        where = _where(name)
        peer = self._mapping.memory.peers.get(where)
        self._mapping.deliver(data, peer.current if peer is not None else FarEnd(where))

    def _returned(self) -> None:
        """The mapping's own filters have seen enough."""
        chain, self.chain = self.chain, None
        self._mapping.dropped += chain.dropped if chain is not None else 0
        for destination in self._mapping.memory:
            self._mapping.let_flow(destination)

    def _failed(self, failure: Failure, cause: BaseException) -> None:
        """A filter of the mapping has ended it."""
        connection = self._mapping.connection
        connection.engine.chain_failed(connection, ChainFailed(failure, cause))

    def _destination_failed(self, destination: Destination, failure: Failure, cause: BaseException) -> None:
        """A filter of a destination has ended that; the mapping goes on."""
        error, name = failure.error, failure.filter
        if destination.state is not State.OPEN or isinstance(error, LinkError | Terminating):
            self._mapping.forget(destination, error.reason)
            return
        connection = self._mapping.connection
        if isinstance(error, Refuse):
            destination.verdicts.append(Verdict(name, "denied", error.reason))
            detail = "" if error.detail == error.reason else error.detail
            refusal = Refusal("deny", error.reason, ReplyHint.NOT_ALLOWED, None, detail, name)
        else:
            destination.verdicts.append(Verdict(name, "failed", error.reason))
            refusal = Refusal("fail", error.reason, error.hint, destination.decision.rule, error.detail)
            connection.engine.filter_failed(connection, name, cause)
        self._mapping.deny(destination, refusal)


@lru_cache(maxsize=1024)
def _where(name: SocketName) -> tuple[str, int] | tuple[str, int, int, int]:
    """As the kernel writes it; the name was checked where it came from."""
    address = target_of(*name).address
    assert address is not None
    return socket_address(address, name[1])
