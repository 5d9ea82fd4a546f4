"""The gateway of a running firewall: start, reload, drain, and what keeps it from being one.

Without rights, and without a packet filter: TCP by redirect, where nobody is redirected. With both:
tests/end_to_end/test_gateway.py.
"""

from __future__ import annotations

import asyncio
import io
import socket

import pytest
from tests.entry.peers import Peer
from tests.entry.world import HEAD, RULE, World, short_home, world

from doorward.config.loading import load
from doorward.service import transparent
from doorward.service.firewall import Firewall, StartRefused
from doorward.service.operational_log import make_logger

pytestmark = pytest.mark.anyio


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def table(port: int, more: str = "") -> str:
    return (
        f'[transparent]\ninterfaces = ["lan0"]\nnetworks = ["127.0.0.0/8"]\nmethod = "redirect"\nudp = false\n'
        f"port = {port}\n{more}\n"
    )


async def outcome(here: World, port: int, host: str = "127.0.0.1") -> str:
    """What a client meets that connects to the port itself."""
    sock = socket.create_connection((host, port), 5)
    sock.setblocking(False)
    return (await here.keep(Peer(sock)).outcome())[1]


async def reload(here: World, text: str) -> bool:
    here.write(text)
    return bool((await here.firewall.reload()).ok)


async def test_who_connects_to_the_port_itself_is_refused() -> None:
    port = free_port()
    async with world(HEAD + RULE + table(port)) as here:
        assert await outcome(here, port) == "reset"
        record = await here.record()
        assert (record.entry, record.reason, record.port) == ("transparent", "transparent_port", port)
        (told,) = [line for line in here.told() if line["event"] == "traffic is taken transparently"]
        assert (told["port"], told["interfaces"]) == (port, "lan0")


async def test_a_reload_changes_it_in_place_and_loses_nobody_who_waits() -> None:
    port = free_port()
    async with world(HEAD + RULE + table(port)) as here:
        gateway = here.firewall.transparent
        before = gateway._now
        assert await reload(here, HEAD + RULE + table(port, 'dns = "policy"'))
        assert gateway._now.entry is before.entry
        assert gateway._now.settings is not before.settings
        assert before.entry is not None
        assert before.entry.settings.dns == "policy"
        assert await outcome(here, port) == "reset"


async def test_a_reload_moves_it_to_another_port_and_away() -> None:
    port, other = free_port(), free_port()
    async with world(HEAD + RULE + table(port)) as here:
        assert await reload(here, HEAD + RULE + table(other))
        assert await outcome(here, other) == "reset"
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), 5)
        assert await reload(here, HEAD + RULE)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", other), 5)


async def test_a_reload_that_is_refused_leaves_it_as_it_was() -> None:
    port = free_port()
    async with world(HEAD + RULE + table(port)) as here:
        with socket.create_server(("0.0.0.0", 0)) as taken:
            other = taken.getsockname()[1]
            assert not await reload(here, HEAD + RULE + table(other))
        missing = '[[filter]]\nname = "x"\nuse = "missing.py"\n'
        (here.home / "missing.py").write_text("raise RuntimeError")
        assert not await reload(here, HEAD + RULE + table(free_port()) + missing)
        assert await outcome(here, port) == "reset"
        here.errors_expected = True


async def test_a_port_that_is_taken_keeps_the_firewall_from_starting() -> None:
    with socket.create_server(("0.0.0.0", 0)) as taken, short_home() as home:
        port = taken.getsockname()[1]
        (home / "doorward.toml").write_text(HEAD + RULE + table(port))
        firewall = Firewall(load(home / "doorward.toml"), make_logger(io.StringIO()))
        with pytest.raises(
            StartRefused, match=f"cannot take traffic transparently at port {port}: .* in use"
        ):
            await firewall.start()


@pytest.mark.parametrize("more", ['method = "tproxy"', "udp = true", 'keep_source = ["10.0.0.0/8"]'])
async def test_packets_that_do_not_arrive_keep_it_from_starting(
    more: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only where it depends on them."""
    monkeypatch.setattr(transparent, "take_others_traffic", lambda sock: None)
    monkeypatch.setattr(transparent, "why_nothing_arrives", lambda mark, versions: f"{mark:#x} goes astray")
    key = more.partition(" ")[0]
    text = "\n".join(line for line in table(free_port()).splitlines() if not line.startswith(key))
    with short_home() as home:
        (home / "doorward.toml").write_text(f"{HEAD}{RULE}{text}\n{more}\n")
        firewall = Firewall(load(home / "doorward.toml"), make_logger(io.StringIO()))
        with pytest.raises(StartRefused, match="cannot take traffic transparently: 0xd000001 goes astray"):
            await firewall.start()


async def test_a_missing_right_keeps_it_from_starting(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(sock: socket.socket) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(transparent, "take_others_traffic", refuse)
    with short_home() as home:
        (home / "doorward.toml").write_text(HEAD + RULE + table(free_port()).replace("redirect", "tproxy"))
        firewall = Firewall(load(home / "doorward.toml"), make_logger(io.StringIO()))
        with pytest.raises(StartRefused, match="CAP_NET_RAW or CAP_NET_ADMIN"):
            await firewall.start()


async def test_a_drain_takes_nothing_more() -> None:
    port = free_port()
    async with world(HEAD + RULE + table(port)) as here:
        await asyncio.wait_for(here.firewall.drain(5), 5)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), 5)
