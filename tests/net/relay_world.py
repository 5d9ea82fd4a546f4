"""The world of one relay under test: clients and servers on loopback, and what the relay reported."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from typing import TypeAlias

from tests.net.wires import SMALL_BUFFER_BYTES, Peer, connected, until

from doorward.net.poller import Poller
from doorward.net.relay import Completion, Limits, OnCompletions, Reclaimed, Relay

MakeRelay: TypeAlias = Callable[[Poller, OnCompletions], Relay]

UNLIMITED = Limits()
SIDES = ["internal", "external"]
MIB = 1024 * 1024


def other(side: str) -> str:
    """The other side's name."""
    return "external" if side == "internal" else "internal"


def digest(data: bytes) -> str:
    """Shown in place of megabytes when a test fails."""
    return hashlib.sha256(data).hexdigest()


class Pair:
    """One pair in the relay and the two peers outside it."""

    def __init__(self, world: World, client: Peer, server: Peer) -> None:
        self.world = world
        self.client = client
        self.server = server
        self.id = 0
        self.taken_back = False

    def peer(self, side: str) -> Peer:
        """The peer on this side."""
        return self.client if side == "internal" else self.server

    def other(self, side: str) -> Peer:
        """The peer across from this side."""
        return self.server if side == "internal" else self.client

    async def completion(self) -> Completion:
        """The pair's one completion."""
        await until(lambda: self.id in self.world.completed, "the completion")
        return self.world.completed[self.id]


class World:
    """A relay and the pairs given to it. `close` ends all of it and checks that each pair was reported once."""

    def __init__(self, make_relay: MakeRelay) -> None:
        self.poller = Poller(asyncio.get_running_loop())
        self.batches: list[list[Completion]] = []
        self.completed: dict[int, Completion] = {}
        self.pairs: list[Pair] = []
        self.heard: OnCompletions = lambda completions: None
        self.relay = make_relay(self.poller, self._on_completions)

    def pair(
        self,
        limits: Limits = UNLIMITED,
        *,
        to_external: bytes = b"",
        to_internal: bytes = b"",
        buffer_bytes: int = 0,
    ) -> Pair:
        """A fresh pair in the relay."""
        client, internal = connected(buffer_bytes)
        external, server = connected(buffer_bytes)
        pair = Pair(self, Peer(client), Peer(server))
        self.pairs.append(pair)
        pair.id = self.relay.add(
            internal.detach(), external.detach(), limits, to_external=to_external, to_internal=to_internal
        )
        return pair

    def reclaim(self, pair: Pair) -> Reclaimed:
        """Take a live pair back."""
        reclaimed = self.relay.reclaim(pair.id)
        assert reclaimed is not None
        pair.taken_back = True
        return reclaimed

    def hand_over_again(self, pair: Pair) -> bool:
        """Take a pair back and give it to the relay once more, with what was on its way. False: it has ended."""
        back = self.relay.reclaim(pair.id)
        if back is None:
            return False
        pair.id = self.relay.add(
            back.internal_fd,
            back.external_fd,
            UNLIMITED,
            to_external=back.to_external,
            to_internal=back.to_internal,
        )
        return True

    def close(self) -> None:
        """End everything."""
        self.relay.close()
        self.poller.close()
        for pair in self.pairs:
            pair.client.socket.close()
            pair.server.socket.close()
        assert len(self.relay) == 0
        alive = {pair.id for pair in self.pairs if not pair.taken_back}
        assert alive <= set(self.completed), "a pair was never reported"

    def _on_completions(self, completions: list[Completion]) -> None:
        assert completions, "an empty batch"
        self.batches.append(completions)
        for completion in completions:
            assert completion.id not in self.completed, "a pair was reported twice"
            self.completed[completion.id] = completion
        self.heard(completions)


async def stalled(world: World, side: str) -> tuple[Pair, bytes]:
    """A pair whose peer on this side sends and whose other peer does not read, and what the first one sent."""
    pair = world.pair(buffer_bytes=SMALL_BUFFER_BYTES)
    return pair, await pair.peer(side).push_until_stuck()
