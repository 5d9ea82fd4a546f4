"""One of several processes that serve clients: a whole firewall without log and control socket, led by a supervisor.

    started ──Begin──▶ ready ──Serve──▶ serving ──Drain──▶ draining ──▶ ended
                                           │ Prepare, then Commit or Abandon

It dies with its supervisor: the kernel sees to it (PR_SET_PDEATHSIG), whatever filter code is doing. Signals that a
terminal or a service manager sends to all processes are the supervisor's to understand, and are passed over here.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from doorward.config.model import Configuration, FilterSetting
from doorward.config.problems import ConfigurationRefused
from doorward.record.remote import RemoteWriter
from doorward.service.channel import (
    Abandon,
    AnyOrder,
    Begin,
    Channel,
    Commit,
    Drain,
    Order,
    Prepare,
    Reply,
    Serve,
    Stop,
    Tell,
    close_all,
)
from doorward.service.filters import FilterNotLoaded
from doorward.service.firewall import Firewall, Prepared, StartRefused
from doorward.service.joined import JoinServer
from doorward.service.listeners import CannotListen
from doorward.service.operational_log import make_logger
from doorward.service.reloading import giving_way, policy_of
from doorward.service.running import drain, settle
from doorward.service.share import Bound, Share, share_of

PR_SET_PDEATHSIG: Final = 1
ORDER_END_TIMEOUT_S: Final = 5.0
PROBLEM_CHARACTERS_MAX: Final = 10_000
LET_PASS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_decoder = msgspec.json.Decoder(AnyOrder)


def die_with(supervisor: int) -> None:
    """Bound with the process that started us, also when it is already gone. Raises SystemExit."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != supervisor:
        raise SystemExit(1)


async def serve(control: socket.socket, records: socket.socket) -> int:
    """Serve until the supervisor says otherwise, or is gone; the exit status."""
    loop = asyncio.get_running_loop()
    for number in LET_PASS:
        loop.add_signal_handler(number, lambda: None)  # not SIG_IGN: what filters start would inherit it
    worker = Worker(control, records)
    try:
        return await worker.run()
    finally:
        worker.close()


class Worker:
    """See the module. Orders are carried out one after the other, but for those that cannot wait."""

    def __init__(self, control: socket.socket, records: socket.socket) -> None:
        self._records: socket.socket | None = records
        self._orders: asyncio.Queue[tuple[Order, list[int]]] = asyncio.Queue()
        self._channel = Channel(control, self._receive, self._lose, descriptors=True)
        self._ending = asyncio.Event()
        self._at_once = asyncio.Event()
        self._lost = False
        self._drain_timeout_s = 0.0
        self._number = 0
        self._workers = 1
        self._log: Any = make_logger()
        self._share: Share | None = None
        self._firewall: Firewall | None = None
        self._prepared: Prepared | None = None
        self._joins: JoinServer | None = None

    async def run(self) -> int:
        """Carry out orders to the end; the exit status."""
        loop = asyncio.get_running_loop()
        orders = loop.create_task(self._carry_out_orders())
        ending = loop.create_task(self._ending.wait())
        await asyncio.wait([orders, ending], return_when=asyncio.FIRST_COMPLETED)
        if not orders.done():
            orders.cancel()
        await asyncio.wait([orders], timeout=ORDER_END_TIMEOUT_S)
        ending.cancel()
        firewall = self._firewall
        if firewall is not None:
            if not self._at_once.is_set():
                if self._joins is not None:
                    self._joins.drain()
                await drain(firewall, self._drain_timeout_s, self._at_once)
            if self._joins is not None:
                await self._joins.close()
            await firewall.stop()
        if orders.done() and not orders.cancelled() and (error := orders.exception()) is not None:
            self._log.error("a worker failed", error=error)
            return 1
        return 1 if self._lost else 0

    def close(self) -> None:
        """Let go of the supervisor. Idempotent."""
        self._channel.close()
        if self._share is not None:
            self._share.close()
            self._share.writer.close()
        if self._records is not None:
            self._records.close()
        while not self._orders.empty():
            close_all(self._orders.get_nowait()[1])

    def _receive(self, data: bytes, descriptors: list[int]) -> None:
        order = _decoder.decode(data)  # the supervisor's word is trusted: a mistake in it is a bug of ours
        if isinstance(order, Tell):
            self._tell(order)
        elif isinstance(order, Stop | Drain):
            if isinstance(order, Drain):
                self._drain_timeout_s = order.timeout_s
            else:
                self._at_once.set()
            self._ending.set()
            self._reply(Reply(order.question))
        else:
            self._orders.put_nowait((order, descriptors))

    def _lose(self) -> None:
        """The supervisor is gone: nobody could be told anything any more."""
        self._lost = True
        self._at_once.set()
        self._ending.set()

    def _reply(self, reply: Reply) -> None:
        try:
            self._channel.send(reply)
        except OSError:
            self._lose()

    def _tell(self, order: Tell) -> None:
        firewall = self._firewall
        if firewall is None:
            self._reply(Reply(order.question, "it is not ready"))
        else:
            self._reply(Reply(order.question, status=firewall.process_status(self._number)))

    async def _carry_out_orders(self) -> None:
        while True:
            order, descriptors = await self._orders.get()
            reply = Reply(order.question)
            try:
                match order:
                    case Begin():
                        await self._begin(order, descriptors, reply)
                    case Serve():
                        self._open()
                    case Prepare():
                        await self._prepare(order, descriptors)
                    case Commit():
                        await self._commit()
                    case Abandon():
                        await self._abandon()
            except (ConfigurationRefused, StartRefused, FilterNotLoaded, CannotListen) as error:
                reply.problem = str(error)[:PROBLEM_CHARACTERS_MAX]
            except Exception as error:  # our own bug: it costs this worker, and whoever asked is told
                self._reply(
                    Reply(order.question, f"{type(error).__name__}: {error}"[:PROBLEM_CHARACTERS_MAX])
                )
                raise
            self._reply(reply)

    async def _begin(self, order: Begin, descriptors: list[int], reply: Reply) -> None:
        assert self._records is not None, "it has begun already"
        self._number, self._workers = order.worker, order.workers
        self._log = make_logger(level=order.log_level).bind(worker=order.worker)
        writer = RemoteWriter(self._records)
        self._records = None
        self._share = Share(writer, order.first_id, _sockets(order.listen, descriptors[1:]))
        configuration = await self._read(descriptors[0], order.path)
        extra = [FilterSetting(name, use) for name, use in order.filters]
        firewall = Firewall(configuration, self._log, extra, self._share)
        self._firewall = firewall
        await firewall.make_ready()
        reply.relay, reply.filters = firewall.engine.relay.name, firewall.filters.names

    def _open(self) -> None:
        """Accept clients; programs that join do so with the first worker."""
        firewall = self._expect_firewall()
        firewall.open()
        if self._number == 1:
            self._joins = JoinServer(firewall, self._log)
            self._joins.start()
        settle()

    async def _prepare(self, order: Prepare, descriptors: list[int]) -> None:
        firewall = self._expect_firewall()
        assert self._share is not None
        assert self._prepared is None, "what was prepared is in force, or forgotten"
        self._share.sockets.update(_sockets(order.listen, descriptors[1:]))
        try:
            configuration = await self._read(descriptors[0], order.path)
            self._prepared = await firewall.prepare(configuration)
        finally:
            self._share.close()

    async def _commit(self) -> None:
        assert self._prepared is not None
        prepared, self._prepared = self._prepared, None
        await self._expect_firewall().commit(prepared)

    async def _abandon(self) -> None:
        """What could not be prepared is abandoned already."""
        prepared, self._prepared = self._prepared, None
        if prepared is not None:
            await self._expect_firewall().abandon(prepared)

    async def _read(self, descriptor: int, path: str) -> Configuration:
        """The policy as the supervisor has read it. Raises ConfigurationRefused: files that it names may be gone."""
        with os.fdopen(descriptor, "rb", closefd=True) as file:
            text = os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0)
        configuration: Configuration = await giving_way(policy_of, text, Path(path))
        return share_of(configuration, self._workers)

    def _expect_firewall(self) -> Firewall:
        assert self._firewall is not None, "it has not begun"
        return self._firewall


def _sockets(ends: Sequence[Bound], descriptors: Sequence[int]) -> dict[Bound, socket.socket]:
    return {end: socket.socket(fileno=descriptor) for end, descriptor in zip(ends, descriptors, strict=True)}


def main(control: int, records: int, supervisor: int) -> int:
    """The whole life of a worker that was started with these descriptors by that process; the exit status."""
    die_with(supervisor)
    status = asyncio.run(serve(socket.socket(fileno=control), socket.socket(fileno=records)))
    sys.stdout.flush()
    sys.stderr.flush()
    return status
