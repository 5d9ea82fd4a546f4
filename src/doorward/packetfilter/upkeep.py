"""The service's packet filter: it keeps in force, in the kernel, the table and the openings that the service wants.

Openings are asked for and given up at any time; what comes within two milliseconds goes to the helper as one. Each
has a lease that is renewed as long as the service lives. When the helper has gone, the table stays as it is and nothing
new is opened; as soon as one answers again, it gets the table and the openings that are wanted then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Final

from doorward.packetfilter.client import Client, HelperGone, HelperRefused
from doorward.packetfilter.messages import Flow, Opening
from doorward.packetfilter.model import Element, Table

BATCH_S: Final = 0.002
LEASE_S: Final = 30.0
RENEW_S: Final = 10.0
RETRY_S: Final = 1.0

Say = Callable[[str], None]
OnFlows = Callable[[tuple[Flow, ...]], None]


class PacketFilter:
    """`run` is a task of its owner's, from `start` on. Everything else is called on the same loop."""

    def __init__(self, path: Path, say: Say, on_flows: OnFlows = lambda flows: None) -> None:
        """`path` is the helper's socket; `say` tells the operator what goes wrong, and what is well again."""
        self._path = path
        self._say = say
        self._on_flows = on_flows
        self._client: Client | None = None
        self._table: Table | None = None
        self._held: dict[Element, int] = {}
        self._asked: dict[Element, asyncio.Future[None]] = {}
        self._ended: set[Element] = set()
        self._wake = asyncio.Event()

    @property
    def answers(self) -> bool:
        """Whether the helper is there."""
        return self._client is not None and not self._client.closed

    @property
    def table(self) -> Table | None:
        """What is in force, or will be when the helper answers again."""
        return self._table

    async def start(self, table: Table) -> None:
        """Connect, and put the first table in force. Raises HelperGone, HelperRefused."""
        client = await self._connect()
        try:
            await client.load(table, ())
        except BaseException:
            client.close()
            raise
        self._client, self._table = client, table

    async def load(self, table: Table) -> None:
        """Put another table in force; afterwards the old one is, if this raises HelperGone or HelperRefused."""
        if self._client is None:
            raise HelperGone("the packet filter's helper has gone")
        await self._client.load(table, self._openings())
        self._table = table

    async def count(self) -> dict[str, int]:
        """Packets by counter since the table was loaded; none while the helper is away."""
        try:
            return {} if self._client is None else await self._client.count()
        except (HelperGone, HelperRefused):
            return {}

    async def open(self, element: Element) -> None:
        """From here on peers get through, until `close` has been called as often as this has returned.

        Raises HelperGone, HelperRefused; then nothing is held. Cancelled, too.
        """
        try:
            await asyncio.shield(self.ask(element))
        except asyncio.CancelledError:
            self.close(element)
            raise

    def ask(self, element: Element) -> asyncio.Future[None]:
        """The same without waiting: `close` may be called at once. The answer has the error, if there is one."""
        loop = asyncio.get_running_loop()
        answer = self._asked.get(element)
        if answer is None:
            answer = loop.create_future()
            answer.add_done_callback(_heard)
            if self._held.get(element, 0):
                answer.set_result(None)
            elif not self.answers:
                answer.set_exception(
                    HelperGone("nothing can be opened: the packet filter's helper does not answer")
                )
                return answer
            else:
                self._asked[element] = answer
                self._wake.set()
        self._held[element] = self._held.get(element, 0) + 1
        return answer

    def close(self, element: Element) -> None:
        """One less that wants it open; after the last it is closed, soon."""
        held = self._held.get(element, 0)
        if held > 1:
            self._held[element] = held - 1
        elif held:
            del self._held[element]
            self._ended.add(element)
            self._wake.set()

    async def run(self) -> None:
        """Keep it so, until cancelled. What is open then is closed by the helper, as the channel ends."""
        try:
            while True:
                try:
                    await self._serve()
                except HelperGone as error:
                    self._say(f"{error}; what it has loaded stays in force, and nothing new is opened")
                    self._fail(error)
                    await self._reconnect()
        finally:
            self._fail(HelperGone("the packet filter has been stopped"))
            self.end()

    def end(self) -> None:
        """Nothing more is kept; the helper closes what was open. Idempotent."""
        if self._client is not None:
            self._client.close()

    async def _serve(self) -> None:
        """Changes as they come, and all leases now and then. Raises HelperGone."""
        loop = asyncio.get_running_loop()
        renewed = loop.time()
        while True:
            try:
                async with asyncio.timeout_at(renewed + RENEW_S):
                    await self._wake.wait()
            except TimeoutError:
                pass
            else:
                await asyncio.sleep(BATCH_S)
            self._wake.clear()
            client = self._client
            if client is None or client.closed:
                raise HelperGone("the packet filter's helper has gone")
            is_time = loop.time() >= renewed + RENEW_S
            renewed = loop.time() if is_time else renewed
            await self._change(client, tuple(self._held if is_time else self._asked))

    async def _change(self, client: Client, opened: tuple[Element, ...]) -> None:
        asked, self._asked = self._asked, {}
        ended, self._ended = self._ended, set()
        closed = tuple(element for element in ended if element not in self._held)
        wanted = tuple(Opening(element, LEASE_S) for element in opened if element in self._held)
        failed: dict[Element, Exception] = {}
        try:
            if wanted or closed:
                await client.change(wanted, closed)
        except HelperRefused as error:
            refused = error.elements or opened
            failed = dict.fromkeys(refused, error)
            self._say(f"{len(refused)} openings were refused: {error}")
        except BaseException as error:
            failure = error if isinstance(error, HelperGone) else HelperGone("stopped")
            failed = dict.fromkeys(asked, failure)
            raise
        finally:
            for element, answer in asked.items():
                if answer.done():
                    continue
                if element in failed:
                    self._held.pop(element, None)
                    answer.set_exception(failed[element])
                else:
                    answer.set_result(None)

    def _openings(self) -> tuple[Opening, ...]:
        return tuple(Opening(element, LEASE_S) for element in self._held)

    async def _connect(self) -> Client:
        return await Client.connect(self._path, self._on_flows, self._wake.set)

    async def _reconnect(self) -> None:
        """Until a helper has the table and the openings. What it refuses is tried again, too."""
        said = ""
        while True:
            await asyncio.sleep(RETRY_S)
            try:
                client = await self._connect()
            except HelperGone:
                continue
            try:
                if self._table is not None:
                    await client.load(self._table, self._openings())
            except BaseException as error:
                client.close()
                if not isinstance(error, HelperGone | HelperRefused):
                    raise
                if str(error) != said:
                    said = str(error)
                    self._say(f"the packet filter's helper does not take the table: {said}")
                continue
            self._client = client
            self._say("the packet filter's helper is back, with table and openings as they should be")
            return

    def _fail(self, error: HelperGone) -> None:
        asked, self._asked = self._asked, {}
        for element, answer in asked.items():
            self._held.pop(element, None)
            if not answer.done():
                answer.set_exception(error)


def _heard(answer: asyncio.Future[None]) -> None:
    """An answer that nobody waits for any more is no mistake."""
    if not answer.cancelled():
        answer.exception()
