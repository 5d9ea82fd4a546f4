"""Probes of published servers: a TCP connection that is closed again, now and then, under a deadline."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from doorward.api.errors import LinkError, OutOfResources
from doorward.net.dial import dial

if TYPE_CHECKING:
    from doorward.config.model import HealthChecks
    from doorward.engine.publishing.servers import Server, Servers
    from doorward.net.poller import Poller


async def probe_for_ever(poller: Poller, servers: Servers, server: Server, checks: HealthChecks) -> None:
    """Find out how one machine fares, until cancelled."""
    while True:
        await probe(poller, servers, server, checks)
        await asyncio.sleep(checks.interval_s)


async def probe(poller: Poller, servers: Servers, server: Server, checks: HealthChecks) -> None:
    """Find out once. That we are short of descriptors says nothing about the machine."""
    port = checks.port or server.port
    try:
        leg, _ = await dial(poller, (server.address,), port, checks.timeout_s)
    except OutOfResources:
        return
    except LinkError as error:
        servers.down(server, f"probe of port {port}: {error.detail or error.reason}")
        return
    leg.close_now()
    servers.well(server)
