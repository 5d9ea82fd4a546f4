from __future__ import annotations

import asyncio
import io
from pathlib import Path
from typing import Any

import pytest
from tests.entry.filters import CHANGE, NOT_STARTING, TELL, WATCH, use
from tests.entry.http.requests import answer_with, get
from tests.entry.peers import PATIENCE_S, Peer, Server, read_answer, socks5_request
from tests.entry.world import HEAD, ONLY_USERS, RULE, World, limits, short_home, user, world

from doorward.config.loading import load
from doorward.record import reader
from doorward.record.query import Query
from doorward.service.firewall import Firewall, StartRefused
from doorward.service.operational_log import make_logger

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("way_in")]

NOTHING = HEAD + '[[rule]]\nname = "nothing"\naction = "deny"\nprotocols = ["any"]\n'


async def reply_code(here: World, server: Server) -> int:
    """What a client that asks for the server is told."""
    client = await here.client(b"\x05\x01\x00" + socks5_request(server.host, server.port))
    assert await client.receive(2) == b"\x05\x00"
    code = (await client.receive(10))[1]
    client.close()
    return code


def told(here: World, *events: str) -> list[tuple[Any, ...]]:
    return [(line["event"], line.get("version")) for line in here.told() if line["event"] in events]


async def test_new_rules_hold_for_new_connections_and_live_ones_go_on() -> None:
    async with world() as here:
        server = here.server()
        client, outer = await here.tunnel(server)
        before = here.firewall.configuration.revision
        here.write(NOTHING)
        answer = await here.firewall.reload()
        assert answer.ok
        assert before not in answer.message
        assert await reply_code(here, server) == 2
        await client.send(b"still here")
        assert await outer.receive(10) == b"still here"
        client.close()
        outer.close()
        await here.quiet()
        assert [(r.action, r.policy == before) for r in here.records] == [("deny", False), ("allow", True)]


async def test_a_request_that_is_allowed_no_longer_does_not_use_a_connection_made_before() -> None:
    async with world() as here:
        server = here.server()
        client = await here.client(get(server))
        await answer_with(await here.accept(server), b"1")
        await read_answer(client)
        here.write(HEAD)
        assert (await here.firewall.reload()).ok
        await client.send(get(server))
        answer = await read_answer(client)
        assert (answer.status, answer.reason) == (403, "guarded_loopback")


@pytest.mark.parametrize("text", ["", "[[rule]]\nname = 7\n", "not toml", "\0"])
async def test_a_policy_with_a_mistake_changes_nothing(text: str) -> None:
    async with world() as here:
        here.errors_expected = True
        server, revision = here.server(), here.firewall.configuration.revision
        before = here.firewall.listeners.addresses
        here.write(text or HEAD + "[nonsense]\n")
        answer = await here.firewall.reload()
        assert not answer.ok
        assert answer.problems
        assert all("doorward.toml" in problem for problem in answer.problems)
        assert (here.firewall.configuration.revision, here.firewall.listeners.addresses) == (revision, before)
        await here.tunnel(server)
        assert here.errors()[-1]["event"] == "reload refused"


async def test_a_policy_file_that_has_gone_changes_nothing() -> None:
    async with world() as here:
        here.errors_expected = True
        here.policy_path.unlink()
        assert not (await here.firewall.reload()).ok
        await here.tunnel(here.server())


async def test_another_address_is_listened_on_and_the_old_one_is_left() -> None:
    async with world() as here:
        server, old = here.server(), here.proxy
        client, outer = await here.tunnel(server)
        here.write(HEAD.replace("127.0.0.1:0", "[::1]:0") + RULE)
        assert (await here.firewall.reload()).ok
        assert here.proxy[0] == "::1"
        await here.tunnel(server)
        with pytest.raises(ConnectionRefusedError):
            await Peer.connect(*old)
        await client.send(b"still here")
        assert await outer.receive(10) == b"still here"


async def test_an_address_that_cannot_be_bound_refuses_the_reload_whole() -> None:
    async with world() as here:
        here.errors_expected = True
        server, taken = here.server(), here.server()
        addresses = f'["[::1]:0", "127.0.0.1:{taken.port}"]'
        here.write(NOTHING.replace('["127.0.0.1:0"]', addresses))
        before = here.firewall.listeners.addresses
        answer = await here.firewall.reload()
        assert not answer.ok
        assert str(taken.port) in answer.message
        assert here.firewall.listeners.addresses == before
        await here.tunnel(server)


async def test_changed_code_of_a_filter_is_for_new_connections() -> None:
    files = {"tell.py": TELL.format(version=1)}
    async with world(HEAD + use("tell") + RULE, files) as here:
        server = here.server()
        client, outer = await here.tunnel(server)
        here.write(TELL.format(version=2), "tell.py")
        assert (await here.firewall.reload()).ok
        second = await here.tunnel(server)
        assert told(here, "connect") == [("connect", 1), ("connect", 2)]
        for peer in (client, outer):
            peer.close()
        await here.until(lambda: len(here.records) == 1)
        for peer in second:
            peer.close()
        await here.quiet()
        assert told(here, "session") == [("session", 1), ("session", 2)]
        assert told(here, "terminating") == [("terminating", 1), ("terminating", 2)]
        assert [line["connections"] for line in here.told() if line["event"] == "terminating"] == [1, 1]


async def test_bytes_of_a_live_connection_still_pass_the_old_code() -> None:
    files = {"change.py": CHANGE}
    async with world(HEAD + use("change") + RULE, files) as here:
        server = here.server()
        client, outer = await here.tunnel(server)
        here.write(CHANGE.replace('b"y"', 'b"z"'), "change.py")
        assert (await here.firewall.reload()).ok
        other, other_outer = await here.tunnel(server)
        for _ in range(2):
            await client.send(b"x")
            assert await outer.receive(1) == b"y"
            await other.send(b"x")
            assert await other_outer.receive(1) == b"z"


async def test_an_unchanged_filter_lives_on_with_its_state() -> None:
    files = {"tell.py": TELL.format(version=1)}
    async with world(HEAD + use("tell") + RULE, files) as here:
        server = here.server()
        client, outer = await here.tunnel(server)
        here.write(HEAD + use("tell") + limits(idle_timeout_s=7) + RULE)
        assert (await here.firewall.reload()).ok
        assert here.firewall.engine.ruling.limits.idle_timeout_s == 7
        await here.tunnel(server)
        assert told(here, "started", "stopped", "session") == [("started", 1), ("session", 1)]
        for peer in (client, outer):
            peer.close()
        await here.record()
        assert [line["connections"] for line in here.told() if line["event"] == "terminating"] == [2]


async def test_a_filter_that_leaves_is_stopped_once() -> None:
    files = {"tell.py": TELL.format(version=1)}
    async with world(HEAD + use("tell") + RULE, files) as here:
        here.write(HEAD + RULE)
        assert (await here.firewall.reload()).ok
        assert told(here, "started", "stopped") == [("started", 1), ("stopped", 1)]
        await here.tunnel(here.server())
        assert told(here, "connect") == []
    assert told(here, "stopped") == [("stopped", 1)]


async def test_a_filter_that_leaves_is_stopped_after_the_last_event_of_its_connections() -> None:
    files = {"tell.py": TELL.format(version=1)}
    async with world(HEAD + use("tell") + RULE, files) as here:
        client, outer = await here.tunnel(here.server())
        here.write(HEAD + RULE)
        assert (await here.firewall.reload()).ok
        assert told(here, "stopped") == []
        client.close()
        outer.close()
        await here.quiet()
        here.firewall.sweep()
        await here.quiet()
    assert told(here, "connect", "terminating", "stopped") == [
        ("connect", 1),
        ("terminating", 1),
        ("stopped", 1),
    ]


async def test_a_filter_that_does_not_start_refuses_the_reload_and_others_are_stopped_again() -> None:
    files = {"tell.py": TELL.format(version=1), "not_starting.py": NOT_STARTING}
    async with world(HEAD + RULE, files) as here:
        here.errors_expected = True
        here.write(HEAD + use("tell") + use("not_starting") + RULE)
        answer = await here.firewall.reload()
        assert not answer.ok
        assert "no licence" in answer.message
        assert told(here, "started", "stopped") == [("started", 1), ("stopped", 1)]
        await here.tunnel(here.server())
        assert told(here, "connect") == []


@pytest.mark.parametrize("text", ["def broken(", "import nowhere_to_be_found", "x = 1", None])
async def test_a_filter_file_that_cannot_be_loaded_refuses_the_reload(text: str | None) -> None:
    async with world(HEAD + use("watch") + RULE, {"watch.py": WATCH}) as here:
        here.errors_expected = True
        if text is None:
            (here.home / "watch.py").unlink()
        else:
            here.write(text, "watch.py")
        answer = await here.firewall.reload()
        assert not answer.ok
        assert "watch" in " ".join([answer.message, *answer.problems])
        await here.tunnel(here.server())


async def test_users_of_the_new_policy_count_at_once() -> None:
    async with world(HEAD + user("kim", "old") + ONLY_USERS) as here:

        async def login(password: str) -> bytes:
            hello = b"\x05\x01\x02\x01\x03kim" + bytes([len(password)]) + password.encode()
            client = await here.client(hello)
            return (await client.receive(4))[3:]

        assert await login("old") == b"\x00"
        here.write(HEAD + user("kim", "new") + ONLY_USERS)
        assert (await here.firewall.reload()).ok
        assert await login("old") == b"\x01"
        assert await login("new") == b"\x00"


async def test_two_reloads_at_once_come_one_after_the_other() -> None:
    async with world() as here:
        here.write(NOTHING)
        answers = await asyncio.gather(here.firewall.reload(), here.firewall.reload())
        assert [answer.ok for answer in answers] == [True, True]


async def test_a_changed_place_of_the_log_is_told_to_need_a_start() -> None:
    async with world() as here:
        here.write((HEAD + RULE).replace("log.db", "other.db"))
        answer = await here.firewall.reload()
        assert answer.ok
        assert "next start" in answer.problems[0]


@pytest.mark.parametrize("policy", [HEAD + RULE, HEAD + use("tell") + RULE])
async def test_stopping_resets_what_lives_and_every_record_is_on_disk(policy: str) -> None:
    async with world(policy, {"tell.py": TELL.format(version=1)}) as here:
        client, outer = await here.tunnel(here.server())
        await client.send(b"hello")
        assert await outer.receive(5) == b"hello"
        waiting = await here.client(b"\x05")
        await here.until(lambda: here.guests == 1)
        await here.firewall.stop()
        assert (await client.outcome())[1] == "reset"
        assert (await outer.outcome())[1] == "reset"
        await waiting.outcome()
        records = list(reader.read(here.home / "log.db", Query()))
        assert [(r.action, r.bytes_sent) for r in records if r.connection] == [("allow", 5)]
        events = told(here, "connect", "terminating", "stopped")
        assert events in ([], [("connect", 1), ("terminating", 1), ("stopped", 1)])
        assert bool(events) == ("tell" in policy)


async def test_draining_takes_no_new_clients_and_lets_the_others_end() -> None:
    async with world() as here:
        client, outer = await here.tunnel(here.server())
        draining = asyncio.gather(here.firewall.drain(5.0))
        await asyncio.sleep(0)
        with pytest.raises(ConnectionRefusedError):
            await Peer.connect(*here.first_proxy)
        await client.send(b"last")
        assert await outer.receive(4) == b"last"
        client.close()
        outer.close()
        await draining
        assert [(r.action, r.end) for r in here.records] == [("allow", "closed")]


async def test_draining_does_not_wait_for_clients_between_two_requests() -> None:
    async with world() as here:
        server = here.server()
        client = await here.client(get(server))
        outer = await here.accept(server)
        await answer_with(outer, b"ok")
        assert (await read_answer(client)).status == 200
        await here.firewall.drain(PATIENCE_S)
        assert await client.outcome() == (b"", "closed")
        assert here.firewall.entry.serving == 0


LISTENS_FOR_ITSELF = """
from doorward.api import ApplicationFilter, Interest, SessionFilter


class Listens(ApplicationFilter):
    interest = Interest.of("any")

    async def start(self, firewall):
        self.listener = listener = firewall.create_network_socket()
        await listener.bind("127.0.0.1", 0)
        await listener.listen()

    def session_filter(self, session):
        return SessionFilter()
"""


async def test_draining_does_not_wait_for_what_filters_hold_open_for_themselves() -> None:
    policy = HEAD + '[[filter]]\nname = "listens"\nuse = "listens.py"\n' + RULE
    async with world(policy, {"listens.py": LISTENS_FOR_ITSELF}) as here:
        assert len(here.firewall.engine.connections) == 1
        async with asyncio.timeout(PATIENCE_S):
            await here.firewall.drain(10 * PATIENCE_S)


async def test_draining_ends_at_its_deadline() -> None:
    async with world() as here:
        client, _ = await here.tunnel(here.server())
        await here.firewall.drain(0.01)
        assert len(here.firewall.engine.connections) == 1
        await here.firewall.stop()
        assert (await client.outcome())[1] == "reset"


async def refused_start(policy: str, home: Path) -> str:
    """Why a firewall with this policy does not start; nothing of it may be left."""
    path = home / "second.toml"
    path.write_text(policy)
    firewall = Firewall(load(path), make_logger(io.StringIO()))
    with pytest.raises(StartRefused) as caught:
        await firewall.start()
    return str(caught.value)


async def test_a_second_firewall_on_the_same_socket_is_refused_and_the_first_goes_on() -> None:
    async with world() as here:
        assert "another doorward is running" in await refused_start(HEAD + RULE, here.home)
        assert (here.home / "control").is_socket()
        await here.tunnel(here.server())


async def test_a_second_firewall_on_the_same_log_is_refused_and_the_first_goes_on() -> None:
    async with world() as here:
        message = await refused_start((HEAD + RULE).replace('"control"', '"other"'), here.home)
        assert "log.db" in message
        assert not (here.home / "other").exists()
        await here.tunnel(here.server())


async def test_a_second_firewall_on_the_same_port_is_refused() -> None:
    async with world() as here:
        with short_home() as home:
            message = await refused_start(HEAD.replace(":0", f":{here.proxy[1]}") + RULE, home)
            assert f"port {here.proxy[1]}" in message


async def test_a_filter_that_does_not_start_refuses_the_start() -> None:
    with short_home() as home:
        (home / "not_starting.py").write_text(NOT_STARTING)
        assert "no licence" in await refused_start(HEAD + use("not_starting") + RULE, home)


@pytest.mark.parametrize(("on_failure", "code"), [("closed", 1), ("open", 0)])
async def test_while_the_log_cannot_be_written_new_connections_are_refused_or_not(
    on_failure: str, code: int
) -> None:
    async with world(HEAD + f'on_failure = "{on_failure}"\n' + RULE) as here:
        server = here.server()
        live = await here.tunnel(server)
        here.firewall.store.failure = "no space left"
        assert await reply_code(here, server) == code
        if code:
            record = await here.record()
            assert (record.action, record.reason) == ("fail", "log_unavailable")
        await live[0].send(b"still here")
        assert await live[1].receive(10) == b"still here"
        here.firewall.store.failure = None
        assert await reply_code(here, server) == 0
