"""Published servers of a running firewall: start, reload, drain, and what keeps them from being published."""

from __future__ import annotations

import asyncio
import io
import socket
from collections.abc import Iterator
from typing import Final

import pytest
from tests.engine.publishing.houses import receive
from tests.entry.peers import Peer, Server
from tests.entry.world import HEAD, World, limits, world

from doorward.config.loading import load
from doorward.service import publishing
from doorward.service.firewall import StartRefused
from doorward.service.operational_log import make_logger

pytestmark = pytest.mark.anyio

PUBLISH: Final = """
[[publish]]
name = "{name}"
listen = ["{listen}"]
to = ["127.0.0.1:{port}"]
from = ["127.0.0.0/8"]
{more}
"""


def publish(port: int, *, name: str = "web", listen: str = "tcp/127.0.0.1:0", more: str = "") -> str:
    return PUBLISH.format(name=name, listen=listen, port=port, more=more)


async def visit(here: World, name: str = "web") -> Peer:
    return here.keep(await Peer.connect(*here.firewall.publishing.addresses[name][0]))


async def passes(visitor: Peer, server: Peer) -> None:
    await visitor.send(b"hello")
    assert await server.receive(5) == b"hello"
    await server.send(b"olleh")
    assert await visitor.receive(5) == b"olleh"


def is_open(where: tuple[str, int]) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(where) == 0


@pytest.fixture
def server() -> Iterator[Server]:
    found = Server()
    yield found
    found.socket.close()


async def test_a_server_is_published_at_the_start_and_gone_at_the_end(server: Server) -> None:
    async with world(HEAD + publish(server.port)) as here:
        where = here.firewall.publishing.addresses["web"][0]
        visitor, inner = await visit(here), await here.accept(server)
        await passes(visitor, inner)
        visitor.close()
        inner.close()
        record = await here.record()
        assert (record.rule, record.operation, record.reason) == ("web", "accept", "published")
    assert not is_open(where)


async def test_filters_join_and_rules_of_the_published_server_set_them(server: Server) -> None:
    shout = """
from doorward.api import ApplicationFilter, EventKind, Interest, SessionFilter, StreamFilter

class Adding(StreamFilter):
    def server_data(self, data):
        return data + self.context

class Filter(SessionFilter):
    async def on_accept(self, event):
        event.connection.attach_data_filter(Adding(), context=event.settings["word"].encode())

class Shout(ApplicationFilter):
    interest = Interest.of("http", events=(EventKind.ACCEPT,))
    def session_filter(self, session):
        return Filter()
"""
    policy = HEAD + '[[filter]]\nname = "shout"\nuse = "shout.py"\nsettings = {word = "?"}\n'
    more = 'protocol = "http"\nfilters.shout = {word = "!"}'
    policy += publish(server.port, more=more) + publish(
        server.port, name="quiet", listen="tcp/127.0.0.2:0", more='protocol = "http"\nfilters.shout = false'
    )
    async with world(policy, {"shout.py": shout}) as here:
        visitor, inner = await visit(here), await here.accept(server)
        await visitor.send(b"hello")
        assert await inner.receive(6) == b"hello!"
        quiet, inner = await visit(here, "quiet"), await here.accept(server)
        await passes(quiet, inner)


async def test_a_reload_adds_and_removes_and_who_is_through_goes_on(server: Server) -> None:
    async with world(HEAD + publish(server.port)) as here:
        visitor, inner = await visit(here), await here.accept(server)
        old = here.firewall.publishing.addresses["web"][0]
        here.write(HEAD + publish(server.port, name="other", listen="tcp/127.0.0.2:0"))
        assert (await here.firewall.reload()).ok
        assert list(here.firewall.publishing.addresses) == ["other"]
        assert not is_open(old)
        await passes(visitor, inner)
        await passes(await visit(here, "other"), await here.accept(server))
        sessions = len(here.firewall.engine.sessions)
        visitor.close()
        inner.close()
        await here.until(lambda: any(r.rule == "web" and r.operation == "accept" for r in here.records))
        here.firewall.sweep()
        assert len(here.firewall.engine.sessions) == sessions - 1


async def test_what_does_not_change_is_left_alone(server: Server) -> None:
    policy = HEAD + publish(server.port)
    async with world(policy) as here:
        (house,) = here.firewall.publishing._houses
        here.write("# moved down\n" + policy + limits(idle_timeout_s=5))
        assert (await here.firewall.reload()).ok
        assert here.firewall.publishing._houses == [house]
        assert not [r for r in here.records if r.operation == "bind"]


async def test_a_changed_one_keeps_its_address_and_those_who_wait_there(server: Server) -> None:
    other = Server()
    async with world(HEAD + publish(server.port)) as here:
        host, port = here.firewall.publishing.addresses["web"][0]
        same = f"tcp/{host}:{port}"
        here.write(HEAD + publish(server.port, listen=same))
        here.keep(other)
        answer = await here.firewall.reload()  # the number that the kernel chose is taken by ourselves
        assert not answer.ok
        assert "Address already in use" in answer.message
        here.errors_expected = True
    # By number from the beginning:
    with socket.create_server(("127.0.0.1", 0)) as found:
        number = found.getsockname()[1]
    second = Server()
    async with world(HEAD + publish(server.port, listen=f"tcp/127.0.0.1:{number}")) as here:
        here.keep(second)
        here.firewall.publishing._room = lambda: False
        (house,) = here.firewall.publishing._houses
        house.room = lambda: False
        waiting = await visit(here)
        await asyncio.sleep(0)
        here.firewall.publishing._room = lambda: True
        here.write(HEAD + publish(second.port, listen=f"tcp/127.0.0.1:{number}"))
        assert (await here.firewall.reload()).ok
        await passes(waiting, await here.accept(second))


async def test_a_reload_that_cannot_publish_changes_nothing(server: Server) -> None:
    taken = Server()
    async with world(HEAD + publish(server.port)) as here:
        here.keep(taken)
        here.errors_expected = True
        proxy, addresses = here.proxy, here.firewall.publishing.addresses
        more = publish(server.port, name="other", listen="tcp/127.0.0.2:0")
        bad = publish(server.port, name="bad", listen=f"tcp/127.0.0.1:{taken.port}")
        here.write(HEAD.replace("127.0.0.1:0", "127.0.0.3:0") + more + bad)
        answer = await here.firewall.reload()
        assert not answer.ok
        assert answer.message.startswith(
            f'cannot publish "bad" at tcp/127.0.0.1:{taken.port}: Address already in use'
        )
        assert here.firewall.publishing.addresses == addresses
        assert here.proxy == proxy
        await passes(await visit(here), await here.accept(server))
        here.write(HEAD + more + '[[filter]]\nname = "x"\nuse = "x.py"\n', "doorward.toml")
        here.write("raise RuntimeError('no')", "x.py")
        assert not (await here.firewall.reload()).ok  # what was prepared before the filter failed is given up
        assert here.firewall.publishing.addresses == addresses


async def test_a_start_that_cannot_publish_leaves_nothing(server: Server) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        text = HEAD + publish(server.port, listen=f"tcp/127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(StartRefused, match='cannot publish "web"'):
            async with world(text):
                pass


async def test_without_the_right_to_keep_sources_the_policy_is_refused_and_says_what_is_missing(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publishing, "why_not", lambda version: "Operation not permitted")
    keeping = publish(server.port, more='mode = "keep-source"')
    with pytest.raises(StartRefused, match=r'needs CAP_NET_ADMIN .*Operation not permitted.*"full-proxy"'):
        async with world(HEAD + keeping):
            pass
    async with world(HEAD + publish(server.port)) as here:
        here.errors_expected = True
        here.write(HEAD + keeping)
        answer = await here.firewall.reload()
        assert not answer.ok
        assert "CAP_NET_ADMIN" in answer.message
        await passes(await visit(here), await here.accept(server))


async def test_a_port_that_a_filter_denies_is_closed_and_told_and_a_reload_tries_again(
    server: Server,
) -> None:
    denying = """
from doorward.api import ApplicationFilter, EventKind, Interest, SessionFilter

class Filter(SessionFilter):
    async def on_bind(self, event):
        event.connection.deny("not_today")

class Deny(ApplicationFilter):
    interest = Interest.of("any", events=(EventKind.BIND,))
    def session_filter(self, session):
        return Filter()
"""
    with socket.create_server(("127.0.0.1", 0)) as found:
        where = found.getsockname()
    text = HEAD + publish(server.port, listen=f"tcp/127.0.0.1:{where[1]}")
    async with world(text + '[[filter]]\nname = "deny"\nuse = "deny.py"\n', {"deny.py": denying}) as here:
        here.errors_expected = True
        await here.until(lambda: bool(here.errors()))
        (told,) = here.errors()
        assert (told["event"], told["published"], told["why"]) == (
            "a published port is closed",
            "web",
            "not_today",
        )
        assert not is_open(where)
        assert here.firewall.publishing.addresses == {"web": []}
        here.write(text)
        assert (await here.firewall.reload()).ok
        await passes(await visit(here), await here.accept(server))


async def test_a_drain_lets_nobody_else_in_and_waits_for_who_is_through(server: Server) -> None:
    async with world(HEAD + publish(server.port)) as here:
        where = here.firewall.publishing.addresses["web"][0]
        visitor, inner = await visit(here), await here.accept(server)
        draining = asyncio.Task(here.firewall.drain(5.0), loop=asyncio.get_running_loop())
        await here.until(lambda: not is_open(where))
        await passes(visitor, inner)
        assert not draining.done()
        visitor.close()
        inner.close()
        await draining


async def test_tcp_and_udp_of_one_name_come_and_go_together(server: Server) -> None:
    machine = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    machine.bind(("127.0.0.1", server.port))
    machine.setblocking(False)
    listen = 'tcp/127.0.0.1:0", "udp/127.0.0.1:0'
    client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    client.setblocking(False)
    try:
        async with world(HEAD + publish(server.port, listen=listen)) as here:
            _, where = here.firewall.publishing.addresses["web"]
            client.sendto(b"query", where)
            data, way = await receive(machine)
            assert data == b"query"
            machine.sendto(b"answer", way)
            assert await receive(client) == (b"answer", where)
            await passes(await visit(here), await here.accept(server))
            # The other one is opened at the same sockets, and the flow begins anew.
            here.write(HEAD + publish(server.port, listen=listen, more='balance = "client"'))
            assert (await here.firewall.reload()).ok
            assert here.firewall.publishing.addresses["web"][1] == where
            client.sendto(b"again", where)
            assert (await receive(machine))[0] == b"again"
    finally:
        machine.close()
        client.close()


async def test_a_server_that_does_not_answer_is_in_the_operational_log(server: Server) -> None:
    server.socket.close()
    async with world(HEAD + publish(server.port)) as here:
        visitor = await visit(here)
        assert await visitor.outcome() == (b"", "reset")
        told = [line for line in here.told() if line["event"] == "a published server does not answer"]
        assert [(line["published"], line["why"]) for line in told] == [("web", "Connection refused")]


async def test_what_a_supervisor_has_bound_is_served_and_nobody_else_binds_it(server: Server) -> None:
    bound = socket.create_server(("127.0.0.1", 0))
    text = publish(server.port, listen=f"tcp/127.0.0.1:{bound.getsockname()[1]}")
    async with world() as here:
        here.write(HEAD + text, "other.toml")
        wanted = load(here.home / "other.toml").published
        log = make_logger(io.StringIO())
        alone = publishing.Publishing(here.firewall.engine, log, lambda: True)
        with pytest.raises(publishing.CannotPublish):
            alone.prepare(wanted)
        one = publishing.Publishing(here.firewall.engine, log, lambda: True, lambda address: bound)
        one.commit(one.prepare(wanted))
        visitor = await Peer.connect(*bound.getsockname())
        await passes(visitor, await here.accept(server))
        visitor.close()
        one.end()
        assert bound.fileno() < 0
