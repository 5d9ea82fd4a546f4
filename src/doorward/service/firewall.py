"""The firewall: one process with its listeners, its engine, its filters, its log.

    start ─▶ serving ─▶ (reload …) ─▶ drain ─▶ stop

A reload is all or nothing: everything that can fail is done before the one swap of what is in force.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import doorward
from doorward.api.filters import ClientKind
from doorward.config.model import Configuration, FilterSetting, ListenAddress, PublishedAddress
from doorward.config.problems import ConfigurationRefused
from doorward.engine.association import Associations
from doorward.engine.connection import Connection
from doorward.engine.engine import Engine
from doorward.engine.ruling import Ruling
from doorward.engine.session import SessionTable
from doorward.engine.supervision import Supervisor, Watchdog
from doorward.entry.authentication import Authenticator
from doorward.entry.mixed import MixedEntry
from doorward.net.native_datagrams import make_courier
from doorward.net.own_addresses import OwnAddresses
from doorward.net.poller import Poller
from doorward.net.relay_choice import make_relay
from doorward.net.resolve import Resolver
from doorward.record.model import StoreError
from doorward.record.store import RecordStore
from doorward.service.control import Answer, ControlServer, ControlUnavailable
from doorward.service.descriptors import raise_limit
from doorward.service.filter_set import FilterSet
from doorward.service.filters import FilterNotLoaded, LoadedFilter
from doorward.service.front_door import AnyListener, FrontDoor
from doorward.service.listeners import CannotListen, Listeners
from doorward.service.listeners import Prepared as PreparedListeners
from doorward.service.packet_filter import GatewayFilter
from doorward.service.publishing import Prepared as PreparedPublishing
from doorward.service.publishing import Publishing
from doorward.service.recorder import StoreRecorder
from doorward.service.reloading import giving_way, read_policy, refused, reloaded
from doorward.service.share import Share, bound_at
from doorward.service.status import Status, WorkerStatus, counts_of, shown_address
from doorward.service.transparent import Prepared as PreparedTransparent
from doorward.service.transparent import TransparentGateway

SWEEP_S: Final = 15.0
DRAIN_LOOK_S: Final = 0.05
STOP_TIMEOUT_S: Final = 5.0


class StartRefused(Exception):
    """The firewall cannot start as configured. The message is for the operator."""


class Prepared(NamedTuple):
    """A configuration that can be put in force without anything that may fail, or given up."""

    configuration: Configuration
    listeners: PreparedListeners
    published: PreparedPublishing
    transparent: PreparedTransparent
    filters: list[LoadedFilter]


class Firewall:
    """See the module. To be made inside a running loop."""

    def __init__(
        self,
        configuration: Configuration,
        log: Any,
        extra_filters: Sequence[FilterSetting] = (),
        share: Share | None = None,
    ) -> None:
        """`share` is for one of several workers: it has a supervisor in place of a log and a control socket."""
        loop = asyncio.get_running_loop()
        limits = configuration.limits
        first_id = 1 if share is None else share.first_id
        self.configuration = configuration
        self._log = log
        self._share = share
        self._started = time.monotonic()
        self._first_id = first_id
        descriptors = raise_limit()
        self.supervisor = Supervisor(self._task_failed)
        self.poller = Poller(loop)
        self.watchdog = Watchdog(limits.filter_stall_s)
        writer = None if share is None else share.writer
        self.store = RecordStore(configuration.log, on_event=self._store_event, writer=writer)
        self.filters = FilterSet(log, extra_filters, lambda: self.engine, self.watchdog)
        self.authenticator = Authenticator(configuration.users, loop.time)
        self.engine = Engine(
            poller=self.poller,
            resolver=Resolver(limits.resolve_timeout_s),
            own_addresses=OwnAddresses(loop.time),
            sessions=SessionTable(loop.time, limits.sessions_max, limits.session_idle_s, first_id),
            watchdog=self.watchdog,
            supervisor=self.supervisor,
            recorder=StoreRecorder(self.store, configuration.log),
            ruling=Ruling(configuration.policy, Associations([], configuration.protocols), limits),
            on_filter_failure=self._filter_failed,
            first_id=first_id,
        )
        self.engine.relay = make_relay(self.poller, self.engine.completed)
        self.engine.udp.inbox.courier = make_courier(self.poller)
        self.entry = MixedEntry(self.engine, self.authenticator)
        self.front_door = FrontDoor(self.engine, self.entry, descriptors, self._most_clients, log)
        self.listeners = Listeners(self._listener)
        self.publishing = Publishing(self.engine, log, self.front_door.has_room_inside, self._bound)
        self.transparent = TransparentGateway(self.engine, log, self.front_door.has_room_inside, descriptors)
        self.packet_filter = GatewayFilter(log, self.engine)
        commands = {"reload": self.reload, "status": self._answer_status}
        self.control = ControlServer(configuration.control_path, commands)
        self._unopened: PreparedListeners = {}
        self._unpublished = PreparedPublishing([], [], {})
        self._reloading = asyncio.Lock()
        self._sweep: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        """Everything up to accepting clients, and that. Raises StartRefused, with nothing left behind but files."""
        await self.make_ready()
        self.open()

    async def make_ready(self) -> None:
        """Everything up to accepting clients. Raises StartRefused, with nothing left behind but files."""
        loop = asyncio.get_running_loop()
        self.watchdog.start(loop)
        try:
            filters = await self.filters.prepare(self.configuration)
            self.filters.commit(filters)
            if self._share is None:
                await self.control.start()
            self.store.start()
            self._unopened = self.listeners.prepare(self.configuration.listen)
            self._unpublished = self.publishing.prepare(self.configuration.published)
            self.transparent.first = self.transparent.prepare(self.configuration.transparent)
            await self.packet_filter.prepare(self.configuration, self.filters.entries)
        except (FilterNotLoaded, ControlUnavailable, StoreError, CannotListen, OSError) as error:
            await self.stop()
            raise StartRefused(str(error)) from error
        self.engine.ruling = self._ruling(self.configuration, filters)
        self.front_door.put_in_force(self.configuration)

    def open(self) -> None:
        """Accept clients."""
        self.listeners.commit(self._unopened)
        self._unopened = {}
        self.publishing.commit(self._unpublished)
        self._unpublished = PreparedPublishing([], [], {})
        self.transparent.commit(self.transparent.first)
        self.packet_filter.commit(self.configuration, self.listeners.addresses)
        self._sweep = self.poller.loop.call_later(SWEEP_S, self.sweep)

    async def reload(self) -> Answer:
        """Read the policy file again. Either all of it is in force afterwards, or nothing has changed."""
        async with self._reloading:
            old = self.configuration
            try:
                read = await giving_way(read_policy, old.path)
                prepared = await self.prepare(read.configuration)
            except (ConfigurationRefused, FilterNotLoaded, CannotListen) as error:
                return refused(self._log, old, error)
            await self.commit(prepared)
        return reloaded(self._log, old, self.configuration, len(self.filters.loaded))

    async def prepare(self, configuration: Configuration) -> Prepared:
        """Do everything that can fail. `commit` or `abandon` must follow. Raises FilterNotLoaded, CannotListen."""
        listeners = self.listeners.prepare(configuration.listen)
        published = PreparedPublishing([], [], {})
        transparent = PreparedTransparent(None, None, {})
        try:
            published = self.publishing.prepare(configuration.published)
            transparent = self.transparent.prepare(configuration.transparent)
            filters = await self.filters.prepare(configuration)
            await self.packet_filter.prepare(configuration, [loaded.entry for loaded in filters])
        except BaseException:
            self.listeners.abandon(listeners)
            self.publishing.abandon(published)
            self.transparent.abandon(transparent)
            raise
        return Prepared(configuration, listeners, published, transparent, filters)

    async def commit(self, prepared: Prepared) -> None:
        """Put in force what was prepared: the swap is one step, and cannot fail."""
        self.listeners.commit(prepared.listeners)
        self.filters.commit(prepared.filters)
        self._put_in_force(prepared.configuration)
        self.publishing.commit(prepared.published)
        self.transparent.commit(prepared.transparent)
        self.packet_filter.commit(self.configuration, self.listeners.addresses)
        await self._stop_unused_filters()

    async def abandon(self, prepared: Prepared) -> None:
        """Go on as if nothing had been prepared."""
        self.listeners.abandon(prepared.listeners)
        self.publishing.abandon(prepared.published)
        self.transparent.abandon(prepared.transparent)
        await self.packet_filter.abandon()
        await self.filters.abandon(prepared.filters, prepared.configuration)

    def process_status(self, worker: int = 0) -> WorkerStatus:
        """What this process has to say of itself."""
        return WorkerStatus(
            worker=worker,
            pid=os.getpid(),
            state="serving",
            uptime_s=time.monotonic() - self._started,
            connections=len(self.engine.connections),
            sessions=len(self.engine.sessions),
            begun=self.engine.next_id - self._first_id,
            records_waiting=self.store.waiting,
            records_lost=self.store.lost,
            log_failure=self.store.failure,
            counts=counts_of(self.store.tally),
        )

    async def status(self) -> Status:
        """The whole firewall, which is this process."""
        mine, configuration = self.process_status(), self.configuration
        return Status(
            version=doorward.__version__,
            policy=configuration.revision,
            path=str(configuration.path),
            pid=mine.pid,
            uptime_s=mine.uptime_s,
            relay=self.engine.relay.name,
            listening=[shown_address(*name) for name in self.listeners.addresses],
            filters=self.filters.names,
            counts=mine.counts,
            kernel=await self.packet_filter.told(),
            workers=[mine],
        )

    async def _answer_status(self) -> Answer:
        status = await self.status()
        return Answer(True, f"policy {status.policy} is in force", [], status)

    async def drain(self, timeout_s: float) -> None:
        """Take no more clients; give those that are here so long to end by themselves.

        What filters hold open for themselves, a listener say, would never end, and is not waited for.
        """
        self.listeners.close()
        self.publishing.close()
        self.transparent.close()
        self.entry.close()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        # Looking now and then keeps an event for this off the path of every connection.
        while self._is_busy() and loop.time() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(DRAIN_LOOK_S)

    def _is_busy(self) -> bool:
        return bool(self.entry.serving or self.front_door.waiting or self._serves_clients())

    def _serves_clients(self) -> bool:
        return any(c.origin.kind is not ClientKind.FILTER for c in self.engine.connections.values())

    async def stop(self) -> None:
        """End everything, reset what is alive, write every record. Idempotent."""
        self.listeners.abandon(self._unopened)
        self.listeners.close()
        self.publishing.abandon(self._unpublished)
        self.publishing.close()
        self.transparent.abandon(self.transparent.first)
        self.transparent.close()
        if self._sweep is not None:
            self._sweep.cancel()
        for connection in list(self.engine.connections.values()):
            self.engine.kill(connection, "shutdown")
        self.publishing.end()
        self.front_door.close()
        self.engine.relay.close()
        self.engine.udp.close()
        self.packet_filter.close()
        await self.supervisor.close(STOP_TIMEOUT_S)
        self.filters.commit([])
        await self.filters.stop_unused((), self.configuration)
        await self.control.close()
        self.watchdog.close()
        self.engine.resolver.close()
        self.authenticator.close()
        self.poller.close()
        await asyncio.get_running_loop().run_in_executor(None, self.store.close, STOP_TIMEOUT_S)

    def _put_in_force(self, configuration: Configuration) -> None:
        """The swap: nothing here can fail."""
        limits = configuration.limits
        self.configuration = configuration
        self.engine.ruling = self._ruling(configuration, self.filters.loaded)
        self.engine.resolver.timeout_s = limits.resolve_timeout_s
        self.engine.sessions.sessions_max = limits.sessions_max
        self.engine.sessions.idle_s = limits.session_idle_s
        self.watchdog.stall_s = limits.filter_stall_s
        self.authenticator.replace(configuration.users)
        self.front_door.put_in_force(configuration)
        entries = frozenset(self.filters.entries)
        for session in self.engine.sessions:
            session.forget_filters(entries)

    def _most_clients(self) -> int:
        return self.configuration.limits.connections_max

    def _ruling(self, configuration: Configuration, filters: Sequence[LoadedFilter]) -> Ruling:
        """Everything that a reload swaps at once."""
        associations = Associations([loaded.entry for loaded in filters], configuration.protocols)
        routes, upstreams = configuration.routes, configuration.upstreams
        ways = None
        if routes:  # most have none, and a launched program waits for everything that is imported
            from doorward.net.upstream.ways import Ways

            ways = Ways(self.poller, self.engine.resolver, routes, upstreams)
        return Ruling(configuration.policy, associations, configuration.limits, ways)

    def _listener(self, address: ListenAddress) -> AnyListener:
        return self.front_door.listener(address, self._bound(address))

    def _bound(self, address: ListenAddress | PublishedAddress) -> socket.socket | None:
        """What the supervisor has bound there for us, if there is one."""
        return None if self._share is None else self._share.take(bound_at(address))

    def sweep(self) -> None:
        """Now and then: forget what nobody uses any more."""
        self.front_door.sweep()
        self.engine.sessions.end_idle()
        self.publishing.sweep()
        self.supervisor.spawn(self._stop_unused_filters(), name="stop filters")
        if self._sweep is not None:
            self._sweep.cancel()
        self._sweep = self.poller.loop.call_later(SWEEP_S, self.sweep)

    async def _stop_unused_filters(self) -> None:
        """A filter that has left still serves the connections that it joined."""
        used = (entry for connection in self.engine.connections.values() for entry in connection.entries)
        await self.filters.stop_unused(used, self.configuration)

    def _filter_failed(self, connection: Connection | None, name: str, error: BaseException) -> None:
        number = None if connection is None else connection.id
        self._log.error("a filter failed", filter=name, connection=number, error=error)

    def _task_failed(self, name: str, error: BaseException) -> None:
        self._log.error("a task failed", task=name, error=error)

    def _store_event(self, name: str, /, **fields: object) -> None:
        """From the store's thread."""
        self._log.warning(name, **fields)
