"""The firewall: one process with its listeners, its engine, its filters, its log.

    start ─▶ serving ─▶ (reload …) ─▶ drain ─▶ stop

A reload is all or nothing: everything that can fail is done before the one swap of what is in force.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from typing import Any, Final

from doorward.api.filters import ClientKind
from doorward.config.loading import load
from doorward.config.model import Configuration, FilterSetting, ListenAddress
from doorward.config.problems import ConfigurationRefused
from doorward.engine.association import Associations
from doorward.engine.connection import Connection
from doorward.engine.engine import Engine
from doorward.engine.ruling import Ruling
from doorward.engine.session import SessionTable
from doorward.engine.supervision import Supervisor, Watchdog
from doorward.entry.authentication import Authenticator
from doorward.entry.mixed import MixedEntry
from doorward.net.listen import Listener
from doorward.net.own_addresses import OwnAddresses
from doorward.net.poller import Poller
from doorward.net.relay_choice import make_relay
from doorward.net.resolve import Resolver
from doorward.net.upstream.ways import Ways
from doorward.record.model import StoreError
from doorward.record.store import RecordStore
from doorward.service.control import Answer, ControlServer, ControlUnavailable
from doorward.service.descriptors import clients_that_fit, raise_limit
from doorward.service.filter_set import FilterSet
from doorward.service.filters import FilterNotLoaded, LoadedFilter
from doorward.service.listeners import CannotListen, Listeners
from doorward.service.recorder import StoreRecorder

SWEEP_S: Final = 15.0
DRAIN_LOOK_S: Final = 0.05
GIVE_WAY_S: Final = 0.0005
STOP_TIMEOUT_S: Final = 5.0
# Whoever reloads by SIGHUP has only the operational log to look into.
PROBLEMS_TOLD_MAX: Final = 20


class StartRefused(Exception):
    """The firewall cannot start as configured. The message is for the operator."""


class Firewall:
    """See the module. To be made inside a running loop."""

    def __init__(
        self, configuration: Configuration, log: Any, extra_filters: Sequence[FilterSetting] = ()
    ) -> None:
        loop = asyncio.get_running_loop()
        limits = configuration.limits
        self.configuration = configuration
        self._log = log
        self._descriptors = raise_limit()
        self.supervisor = Supervisor(self._task_failed)
        self.poller = Poller(loop)
        self.watchdog = Watchdog(limits.filter_stall_s)
        self.store = RecordStore(configuration.log, on_event=self._store_event)
        self.filters = FilterSet(log, extra_filters, lambda: self.engine, self.watchdog)
        self.authenticator = Authenticator(configuration.users, loop.time)
        self.engine = Engine(
            poller=self.poller,
            resolver=Resolver(limits.resolve_timeout_s),
            own_addresses=OwnAddresses(loop.time),
            sessions=SessionTable(loop.time, limits.sessions_max, limits.session_idle_s),
            watchdog=self.watchdog,
            supervisor=self.supervisor,
            recorder=StoreRecorder(self.store, configuration.log),
            ruling=Ruling(configuration.policy, Associations([], configuration.protocols), limits),
            on_filter_failure=self._filter_failed,
        )
        self.engine.relay = make_relay(self.poller, self.engine.completed)
        self.entry = MixedEntry(self.engine, self.authenticator)
        self.listeners = Listeners(self._listener)
        self.control = ControlServer(configuration.control_path, {"reload": self.reload})
        self._reloading = asyncio.Lock()
        self._shortage_told = False
        self._sweep: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        """Everything up to accepting clients. Raises StartRefused, with nothing left behind but files."""
        loop = asyncio.get_running_loop()
        self.watchdog.start(loop)
        try:
            filters = await self.filters.prepare(self.configuration)
            self.filters.commit(filters)
            await self.control.start()
            self.store.start()
            listeners = self.listeners.prepare(self.configuration.listen)
        except (FilterNotLoaded, ControlUnavailable, StoreError, CannotListen, OSError) as error:
            await self.stop()
            raise StartRefused(str(error)) from error
        self.engine.ruling = self._ruling(self.configuration, filters)
        self.listeners.commit(listeners)
        self._sweep = loop.call_later(SWEEP_S, self.sweep)

    async def reload(self) -> Answer:
        """Read the policy file again. Either all of it is in force afterwards, or nothing has changed."""
        async with self._reloading:
            old = self.configuration
            try:
                await self._reload()
            except ConfigurationRefused as refused:
                problems = [str(problem) for problem in refused.problems]
                for problem in problems[:PROBLEMS_TOLD_MAX]:
                    self._log.error("a problem in the policy file", problem=problem)
                self._log.error("reload refused", in_force=old.revision, problems=len(problems))
                message = "the policy file does not pass its check; the old policy stays in force"
                return Answer(False, message, problems)
            except (FilterNotLoaded, CannotListen) as error:
                self._log.error("reload refused", in_force=old.revision, error=str(error))
                return Answer(False, f"{error}; the old policy stays in force")
            new = self.configuration
        self._log.info(
            "reloaded", policy=new.revision, rules=len(new.policy.rules), filters=len(self.filters.loaded)
        )
        restart = (old.log, old.control_path) != (new.log, new.control_path)
        hints = ["changes of [log] and [control] take effect at the next start"] if restart else []
        return Answer(True, f"policy {new.revision} is in force", hints)

    async def drain(self, timeout_s: float) -> None:
        """Take no more clients; give those that are here so long to end by themselves.

        What filters hold open for themselves, a listener say, would never end, and is not waited for.
        """
        self.listeners.close()
        self.entry.close()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        # Looking now and then keeps an event for this off the path of every connection.
        while (self.entry.serving or self._serves_clients()) and loop.time() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(DRAIN_LOOK_S)

    def _serves_clients(self) -> bool:
        return any(c.origin.kind is not ClientKind.FILTER for c in self.engine.connections.values())

    async def stop(self) -> None:
        """End everything, reset what is alive, write every record. Idempotent."""
        self.listeners.close()
        if self._sweep is not None:
            self._sweep.cancel()
        for connection in list(self.engine.connections.values()):
            self.engine.kill(connection, "shutdown")
        self.engine.relay.close()
        await self.supervisor.close(STOP_TIMEOUT_S)
        self.filters.commit([])
        await self.filters.stop_unused((), self.configuration)
        await self.control.close()
        self.watchdog.close()
        self.engine.resolver.close()
        self.authenticator.close()
        self.poller.close()
        await asyncio.get_running_loop().run_in_executor(None, self.store.close, STOP_TIMEOUT_S)

    async def _reload(self) -> None:
        """Prepare all, then swap. Raises ConfigurationRefused, FilterNotLoaded, CannotListen."""
        configuration = await self._read_policy()
        listeners = self.listeners.prepare(configuration.listen)
        try:
            filters = await self.filters.prepare(configuration)
        except BaseException:
            self.listeners.abandon(listeners)
            raise
        self.listeners.commit(listeners)
        self.filters.commit(filters)
        self._put_in_force(configuration)
        await self._stop_unused_filters()

    async def _read_policy(self) -> Configuration:
        """In a thread that gives way to the loop more often than every 5 ms: a large policy takes seconds."""
        usual_s = sys.getswitchinterval()
        sys.setswitchinterval(GIVE_WAY_S)
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(None, load, self.configuration.path)
        finally:
            sys.setswitchinterval(usual_s)

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
        entries = frozenset(self.filters.entries)
        for session in self.engine.sessions:
            session.forget_filters(entries)

    def _ruling(self, configuration: Configuration, filters: Sequence[LoadedFilter]) -> Ruling:
        """Everything that a reload swaps at once."""
        associations = Associations([loaded.entry for loaded in filters], configuration.protocols)
        routes, upstreams = configuration.routes, configuration.upstreams
        ways = Ways(self.poller, self.engine.resolver, routes, upstreams) if routes else None
        return Ruling(configuration.policy, associations, configuration.limits, ways)

    def _listener(self, address: ListenAddress) -> Listener:
        return Listener(
            self.poller,
            address.host,
            address.port,
            self.entry.on_client,
            room=self._has_room,
            on_shortage=self._shortage,
        )

    def _has_room(self) -> bool:
        """Whether one more client fits, into the operator's limit and into the descriptors."""
        alive = self.entry.serving + len(self.engine.relay)
        limit = self.configuration.limits.connections_max
        return alive < clients_that_fit(self._descriptors) and (not limit or alive < limit)

    def _shortage(self, why: str) -> None:
        """New clients wait in the backlog. Told once until the next sweep: it happens in bursts."""
        if not self._shortage_told:
            self._shortage_told = True
            alive = self.entry.serving + len(self.engine.relay)
            self._log.warning("new clients have to wait", why=why, clients=alive)

    def sweep(self) -> None:
        """Now and then: forget what nobody uses any more."""
        self._shortage_told = False
        self.engine.sessions.end_idle()
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
