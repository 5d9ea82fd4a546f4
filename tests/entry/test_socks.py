from __future__ import annotations

import resource

import pytest
from tests.entry.peers import Peer, socks4_request, socks5_request, socks_login
from tests.entry.socks import EITHER, LOGIN, MALFORMED, NO_LOGIN, ask5, reply5, talk
from tests.entry.world import HEAD, ONLY_USERS, RULE, limits, user, world

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("way_in")]

USERS = HEAD + user("kim", "right") + ONLY_USERS


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
async def test_version_5_reaches_an_address(address: str) -> None:
    async with world() as here:
        server = here.server(address)
        client, outer = await here.tunnel(server)
        await talk(client, outer)
        record = await here.record()
        assert (record.entry, record.action, record.end) == ("socks5", "allow", "closed")
        assert (record.host, record.address, record.port) == (None, address, server.port)
        assert (record.bytes_sent, record.bytes_received) == (13, 21)


async def test_version_5_reaches_a_name_and_the_record_has_both() -> None:
    async with world() as here:
        here.names(**{"App.Example".lower(): "127.0.0.1"})
        client, outer = await here.tunnel(here.server(), "App.Example.")
        await talk(client, outer)
        record = await here.record()
        assert (record.host, record.address) == ("app.example", "127.0.0.1")


async def test_the_answer_names_our_end_of_the_outer_leg() -> None:
    async with world() as here:
        server = here.server()
        client = await ask5(here, "127.0.0.1", server.port)
        outer = await here.accept(server)
        host, port = outer.socket.getpeername()
        assert host == "127.0.0.1"
        assert await client.receive(10) == b"\x05\x00\x00\x01\x7f\x00\x00\x01" + port.to_bytes(2, "big")


@pytest.mark.parametrize("host", ["127.0.0.1", "app.example"])
async def test_version_4_reaches_an_address_and_4a_a_name(host: str) -> None:
    async with world() as here:
        here.names(**{"app.example": "127.0.0.1"})
        server = here.server()
        client = await here.client(socks4_request(host, server.port))
        outer = await here.accept(server)
        assert (await client.receive(8))[:2] == b"\x00\x5a"
        await talk(client, outer)
        record = await here.record()
        assert (record.entry, record.user, record.action) == ("socks4", None, "allow")


async def test_an_ipv4_address_in_ipv6_clothes_is_judged_and_reached_as_what_it_is() -> None:
    async with world() as here:
        server = here.server()
        client, outer = await here.tunnel(server, "::ffff:127.0.0.1")
        await talk(client, outer)
        assert (await here.record()).address == "127.0.0.1"


@pytest.mark.parametrize("host", ["127.1", "0x7f000001", "2130706433", "0177.0.0.1"])
async def test_a_disguised_address_is_guarded_as_what_it_is(host: str) -> None:
    anywhere = '[[rule]]\nname = "anywhere"\naction = "allow"\nprotocols = ["any"]\n'
    async with world(HEAD + anywhere) as here:
        server = here.server()
        client = await ask5(here, host, server.port)
        assert await reply5(client) == 2
        record = await here.record()
        assert (record.reason, record.host, record.address) == ("guarded_loopback", None, "127.0.0.1")
        assert not server.has_client()


@pytest.mark.parametrize("pieces", [1, 2, 7, 10_000])
async def test_what_is_sent_ahead_of_the_answers_arrives_first_and_in_order(pieces: int) -> None:
    async with world() as here:
        server = here.server()
        ahead = bytes(range(256)) * 40
        whole = NO_LOGIN + socks5_request("127.0.0.1", server.port) + ahead
        size = max(1, len(whole) // pieces)
        client = await here.client()
        for start in range(0, len(whole), size):
            await client.send(whole[start : start + size])
        outer = await here.accept(server)
        await client.send(b"and more")
        assert await outer.receive(len(ahead) + 8) == ahead + b"and more"
        assert await client.receive(2) == b"\x05\x00"
        assert await reply5(client) == 0


async def test_sent_ahead_and_ended_a_client_still_gets_everything() -> None:
    async with world() as here:
        server = here.server()
        client = await here.client(socks4_request("127.0.0.1", server.port) + b"question")
        client.half_close()
        outer = await here.accept(server)
        assert await outer.receive_rest() == b"question"
        await outer.send(b"answer")
        outer.close()
        assert (await client.receive_rest())[8:] == b"answer"


@pytest.mark.parametrize(
    ("policy", "greeting", "answer"),
    [
        (HEAD + RULE, NO_LOGIN, b"\x05\x00"),
        (HEAD + RULE, EITHER, b"\x05\x00"),  # nobody would look at a name: do not ask for it
        (HEAD + RULE, LOGIN, b"\x05\x02"),
        (HEAD + RULE, b"\x05\x01\x01", b"\x05\xff"),  # GSSAPI alone
        (HEAD + RULE, b"\x05\xff" + bytes(range(255)), b"\x05\x00"),
        (USERS, NO_LOGIN, b"\x05\x00"),
        (USERS, EITHER, b"\x05\x02"),
        (USERS, LOGIN, b"\x05\x02"),
    ],
)
async def test_a_login_is_asked_for_where_a_rule_names_users_and_the_client_can(
    policy: str, greeting: bytes, answer: bytes
) -> None:
    async with world(policy) as here:
        client = await here.client(greeting)
        assert await client.receive(2) == answer
        if answer[1] == 0xFF:
            assert await client.outcome() == (b"", "closed")
            client.close()
            record = await here.record()
            assert (record.action, record.reason, record.entry) == ("deny", "user_needed", "socks5")


async def test_the_right_password_opens_and_is_on_record() -> None:
    async with world(USERS) as here:
        server = here.server()
        client = await here.client(EITHER + socks_login("kim", "right"))
        assert await client.receive(4) == b"\x05\x02\x01\x00"
        await client.send(socks5_request("127.0.0.1", server.port))
        outer = await here.accept(server)
        assert await reply5(client) == 0
        await talk(client, outer)
        assert (await here.record()).user == "kim"


@pytest.mark.parametrize(("name", "password"), [("kim", "wrong"), ("nobody", "right"), ("kim", "x" * 255)])
async def test_a_wrong_name_or_password_is_refused_and_on_record(name: str, password: str) -> None:
    async with world(USERS) as here:
        client = await here.client(EITHER + socks_login(name, password))
        assert await client.receive(4) == b"\x05\x02\x01\x01"
        assert await client.outcome() == (b"", "closed")
        client.close()
        record = await here.record()
        assert (record.action, record.reason, record.user) == ("deny", "bad_credentials", name)
        await here.quiet()
        assert len(here.records) == 1


@pytest.mark.parametrize(("name", "password"), [("", "right"), ("", "")])
async def test_an_empty_name_is_refused_in_the_form_of_the_protocol(name: str, password: str) -> None:
    async with world(USERS) as here:
        client = await here.client(LOGIN + socks_login(name, password))
        assert await client.receive(4) == b"\x05\x02\x01\x01"
        assert (await here.record()).reason == "bad_credentials_form"


async def test_an_empty_password_is_a_wrong_password() -> None:
    async with world(USERS) as here:
        client = await here.client(LOGIN + socks_login("kim", ""))
        assert await client.receive(3) == b"\x05\x02\x01"
        assert await client.receive(1) != b"\x00"
        assert (await here.record()).reason in ("bad_credentials", "bad_credentials_form")


async def test_a_client_that_cannot_log_in_is_refused_where_users_are_wanted() -> None:
    async with world(USERS) as here:
        server = here.server()
        client = await ask5(here, "127.0.0.1", server.port)
        assert await reply5(client) == 2
        record = await here.record()
        assert (record.action, record.reason, record.rule) == ("deny", "user_needed", "users only")
        assert not server.has_client()


async def test_bind_of_version_4_is_refused_in_its_own_words() -> None:
    async with world() as here:
        client = await here.client(socks4_request("127.0.0.1", 80, command=2))
        assert await client.receive(8) == b"\x00\x5b" + bytes(6)
        assert await client.outcome() == (b"", "closed")


@pytest.mark.parametrize("version", [4, 5])
async def test_what_policy_denies_is_told_and_never_dialled(version: int) -> None:
    async with world(HEAD + '[[rule]]\nname = "no"\naction = "deny"\nprotocols = ["any"]\n') as here:
        server = here.server()
        if version == 5:
            client = await ask5(here, "127.0.0.1", server.port)
            assert await reply5(client) == 2
        else:
            client = await here.client(socks4_request("127.0.0.1", server.port))
            assert (await client.receive(8))[:2] == b"\x00\x5b"
        assert await client.outcome() == (b"", "closed")
        client.close()
        record = await here.record()
        assert (record.action, record.reason, record.rule, record.end) == (
            "deny",
            "rule_deny",
            "no",
            "refused",
        )
        assert not server.has_client()


async def test_a_port_where_nobody_listens_is_told_as_refused() -> None:
    async with world() as here:
        client = await ask5(here, "127.0.0.1", here.server(listening=False).port)
        assert await reply5(client) == 5
        record = await here.record()
        assert (record.action, record.reason) == ("fail", "connection_refused")


async def test_a_name_without_an_address_is_told_as_an_unreachable_host() -> None:
    async with world(HEAD + '[[rule]]\nname = "web"\naction = "allow"\nprotocols = ["any"]\n') as here:
        here.names()
        client = await ask5(here, "nowhere.example", 80)
        assert await reply5(client) == 4
        record = await here.record()
        assert (record.action, record.reason, record.host) == ("fail", "name_not_found", "nowhere.example")


async def test_a_network_that_cannot_be_reached_is_told_as_an_unreachable_host() -> None:
    async with world() as here:
        client = await ask5(here, "127.255.255.255", 80)  # for TCP there is no way to a broadcast address
        assert await reply5(client) == 4
        assert (await here.record()).reason == "unreachable"


async def test_without_a_descriptor_to_dial_with_the_client_is_told() -> None:
    async with world() as here:
        client = await here.client(NO_LOGIN)
        assert await client.receive(2) == b"\x05\x00"
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
        try:
            await client.send(socks5_request("127.0.0.1", 80))
            assert await reply5(client) == 1
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        record = await here.record()
        assert (record.reason, record.detail) == ("out_of_resources", "Too many open files")


async def test_a_server_that_does_not_answer_is_given_up_in_time() -> None:
    async with world(HEAD + limits(connect_timeout_s=0.2) + RULE) as here:
        server = here.server(backlog=0)
        here.keep(await Peer.connect("127.0.0.1", server.port))  # the one that fits into the backlog
        client = await ask5(here, "127.0.0.1", server.port)
        assert await reply5(client) == 6
        record = await here.record()
        assert (record.action, record.reason) == ("fail", "timed_out")


async def test_a_client_that_vanishes_while_we_dial_leaves_one_record_and_nothing_else() -> None:
    async with world(HEAD + limits(connect_timeout_s=0.2) + RULE) as here:
        server = here.server(backlog=0)
        here.keep(await Peer.connect("127.0.0.1", server.port))
        client = await ask5(here, "127.0.0.1", server.port)
        await here.until(lambda: bool(here.firewall.engine.connections))
        client.reset()
        await here.quiet()
        assert [record.reason for record in here.records] == ["timed_out"]


@pytest.mark.parametrize("host", ["a b", "x" * 64, "a..b", "1.2.3.4.5"])
async def test_what_is_no_name_is_refused_and_never_looked_up(host: str) -> None:
    async with world() as here:
        client = await here.client(NO_LOGIN + socks5_request(host, 80))
        assert await client.receive(2) == b"\x05\x00"
        assert await reply5(client) in (1, 2, 4)
        assert await client.outcome() == (b"", "closed")
        client.close()
        await here.quiet()
        assert [record.reason for record in here.records] == ["bad_name"]


async def test_a_full_table_of_sessions_refuses_in_the_protocol_with_its_reason() -> None:
    async with world(HEAD + limits(sessions_max=1) + user("kim", "right") + RULE) as here:
        server = here.server()
        await here.tunnel(server)
        client = await here.client(LOGIN + socks_login("kim", "right"))
        assert await client.receive(4) == b"\x05\x02\x01\x00"
        await client.send(socks5_request("127.0.0.1", server.port))
        assert await reply5(client) == 1
        assert await client.outcome() == (b"", "closed")
        client.close()
        record = await here.record()
        assert (record.action, record.reason, record.user) == ("fail", "out_of_resources", "kim")


WHOLE = LOGIN + socks_login("kim", "right") + socks5_request("app.example", 80)


@pytest.mark.parametrize("end", ["closes", "resets"])
async def test_a_handshake_cut_off_at_any_byte_leaves_one_record_with_a_reason(end: str) -> None:
    async with world(USERS) as here:
        for length in range(len(WHOLE)):
            client = await here.client(WHOLE[:length])
            if end == "closes":
                client.half_close()
                await client.outcome()
                client.close()
            else:
                await here.until(lambda: here.guests > 0)
                client.reset()
            record = await here.record(length + 1)
            assert record.action == "fail", length
            assert record.reason in ("abandoned", "reset"), length
        await here.quiet()
        assert len(here.records) == len(WHOLE)


async def test_a_handshake_of_version_4_cut_off_at_any_byte_leaves_one_record_with_a_reason() -> None:
    async with world() as here:
        whole = socks4_request("app.example", 80)
        for length in range(1, len(whole)):
            client = await here.client(whole[:length])
            client.close()
            record = await here.record(length)
            assert (record.action, record.reason, record.entry) == ("fail", "abandoned", "socks4")


@pytest.mark.parametrize(("sent", "answer", "reason"), MALFORMED)
async def test_what_is_no_socks_is_answered_in_the_protocol_and_on_record(
    sent: bytes, answer: bytes, reason: str
) -> None:
    async with world() as here:
        client = await here.client(sent)
        assert await client.outcome() == (answer, "closed")
        client.close()
        await here.quiet()
        assert [(r.action, r.reason) for r in here.records] == [("fail", reason)]


@pytest.mark.parametrize("length", [0, 1, 2, 5, 17, 20])
async def test_a_client_that_stops_in_its_handshake_is_let_go_in_time(length: int) -> None:
    async with world(USERS + limits(handshake_timeout_s=0.2)) as here:
        client = await here.client(WHOLE[:length])
        await client.outcome()
        record = await here.record()
        assert (record.action, record.reason) == ("fail", "handshake_timeout")
        await here.quiet()
        assert len(here.records) == 1


async def test_a_reset_of_the_client_reaches_the_server_as_a_reset() -> None:
    async with world() as here:
        client, outer = await here.tunnel(here.server())
        client.reset()
        assert await outer.outcome() == (b"", "reset")
        record = await here.record()
        assert (record.end, record.ended_by) == ("reset", "internal")


async def test_a_reset_of_the_server_reaches_the_client_as_a_reset() -> None:
    async with world() as here:
        client, outer = await here.tunnel(here.server())
        outer.reset()
        assert await client.outcome() == (b"", "reset")
        record = await here.record()
        assert (record.end, record.ended_by) == ("reset", "external")


async def test_a_login_that_was_accepted_is_not_worked_out_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async with world(USERS) as here:
        server = here.server()
        for _ in range(3):
            client = await here.client(LOGIN + socks_login("kim", "right"))
            assert await client.receive(4) == b"\x05\x02\x01\x00"
            await client.send(socks5_request("127.0.0.1", server.port))
            await here.accept(server)
            assert await reply5(client) == 0
            monkeypatch.setattr(here.firewall.authenticator, "_verify", None)
        assert len(here.firewall.engine.sessions) == 1
