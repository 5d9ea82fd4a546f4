"""Active transfers: the server may connect to what we tell it, which leads to the client and to nobody else."""

from __future__ import annotations

import pytest
from tests.filters.ftp.rig import CLIENT, OURS, SERVER, Table, table

from doorward.api import AccessDenied

pytestmark = pytest.mark.anyio

PORT = f"PORT {CLIENT.replace('.', ',')},19,137"
TOLD = f"PORT {OURS.replace('.', ',')},156,65"  # 40001, the first port that is bound
LISTENS = ("listen", (CLIENT, 5001), (SERVER,))


async def hole(t: Table) -> None:
    await t.client.says(PORT)
    await t.server.hears(TOLD)
    await t.answers("200 ok")
    assert t.session.open == [LISTENS]


async def test_the_server_is_told_our_address_and_the_hole_leads_to_the_client() -> None:
    async with table() as t:
        await t.client.says(PORT)
        await t.server.hears(TOLD)
        assert t.session.open == [LISTENS]
        await t.answers("200 ok")
        await t.passes("RETR a")
        await t.answers("150 a", "226 a")
        # The server may be faster than its own data connection, which then still has to come.
        assert t.session.open == [LISTENS]
        await t.over()


async def test_eprt_is_rewritten_in_its_own_words() -> None:
    async with table() as t:
        await t.client.says(f"EPRT |1|{CLIENT}|5001|")
        await t.server.hears(f"EPRT |1|{OURS}|40001|")
        await t.answers("200 ok")
        await t.over()
    async with table(client="2001:db8::7", server="2001:db8:1::1", ours="2001:db8:2::1") as t:
        await t.client.says("EPRT |2|2001:db8::7|5001|")
        await t.server.hears("EPRT |2|2001:db8:2::1|40001|")
        assert t.session.open == [("listen", ("2001:db8::7", 5001), ("2001:db8:1::1",))]
        await t.over()


async def test_a_server_of_the_other_family_is_told_an_address_of_its_own() -> None:
    async with table(client="2001:db8::7") as t:
        await t.client.says("EPRT |2|2001:db8::7|5001|")
        await t.server.hears(f"EPRT |1|{OURS}|40001|")
        await t.over()
    async with table(server="2001:db8:1::1", ours="2001:db8:2::1") as t:
        await t.client.says(PORT)
        await t.server.hears("EPRT |2|2001:db8:2::1|40001|")
        await t.over()


async def test_a_port_that_the_client_had_us_bind_is_told_as_it_is() -> None:
    async with table() as t:
        t.session.bound.add((OURS, 41000))
        await t.passes(f"PORT {OURS.replace('.', ',')},160,40")
        assert t.session.open == [("admit", (OURS, 41000), (SERVER,))]
        await t.answers("200 ok")
        await t.over()


@pytest.mark.parametrize(
    ("line", "code", "reason"),
    [
        ("PORT 10,0,0,1,19,137", 500, "ftp_bounce"),
        ("PORT 127,0,0,1,19,137", 500, "ftp_bounce"),
        (f"PORT {SERVER.replace('.', ',')},0,25", 500, "ftp_bounce"),
        (f"PORT {OURS.replace('.', ',')},160,40", 500, "ftp_bounce"),  # nobody has bound that
        ("EPRT |1|10.0.0.1|5001|", 500, "ftp_bounce"),
        ("EPRT |2|::1|5001|", 500, "ftp_bounce"),
        (f"PORT {CLIENT.replace('.', ',')},3,255", 500, "ftp_privileged_port"),
        (f"PORT {CLIENT.replace('.', ',')},0,0", 501, "ftp_bad_address"),
        (f"PORT {CLIENT.replace('.', ',')},256,1", 501, "ftp_bad_address"),
        (f"PORT {CLIENT.replace('.', ',')},19,137,1", 501, "ftp_bad_address"),
        ("PORT 192,0,2,07,19,137", 501, "ftp_bad_address"),
        ("PORT 192,0,2,99999999999999999999,19,137", 501, "ftp_bad_address"),
        ("PORT", 501, "ftp_bad_address"),
        ("EPRT |1|::1|5001|", 501, "ftp_bad_address"),
        ("EPRT |2|192.0.2.7|5001|", 501, "ftp_bad_address"),
        (f"EPRT |1|{CLIENT}|65536|", 501, "ftp_bad_address"),
    ],
)
async def test_a_client_that_sends_the_server_elsewhere_is_refused(line: str, code: int, reason: str) -> None:
    async with table() as t:
        await t.is_refused(line, code, reason)
        assert t.session.promises == []
        assert [alert["name"] for alert in t.alerts] == ["ftp_bounce"] * (reason == "ftp_bounce")
        await t.passes("NOOP")
        await t.answers("200 still here")
        await t.over()


async def test_a_client_in_ipv6_clothes_is_that_client() -> None:
    async with table(client=f"::ffff:{CLIENT}") as t:
        await hole(t)
        await t.over()


async def test_the_next_one_closes_the_old_hole_at_once() -> None:
    async with table() as t:
        await hole(t)
        await t.client.says(PORT)
        await t.server.hears(f"PORT {OURS.replace('.', ',')},156,66")
        assert t.session.open == [LISTENS]
        assert len(t.session.promises) == 2
        await t.passes("PASV")
        assert t.session.open == []
        await t.answers("500 no")
        await t.over()


@pytest.mark.parametrize(
    ("line", "replies"),
    [("RETR a", ["550 no such file"]), ("RETR a", ["150 a", "426 broken"]), ("ABOR", ["226 aborted"]),
     ("REIN", ["220 again"])],
)  # fmt: skip
async def test_what_makes_the_transfer_impossible_closes_the_hole(line: str, replies: list[str]) -> None:
    async with table() as t:
        await hole(t)
        await t.passes(line)
        await t.answers(*replies)
        assert t.session.open == []
        await t.over()


async def test_a_server_that_refuses_port_leaves_no_hole_and_an_older_no_does_not_close_a_newer_one() -> None:
    async with table() as t:
        await t.client.says(f"{PORT}\n{PORT}")
        await t.server.hears(f"{TOLD}\nPORT {OURS.replace('.', ',')},156,66")
        await t.answers("500 no")
        assert t.session.open == [LISTENS]
        await t.answers("500 no again")
        assert t.session.open == []
        await t.over()


async def test_what_the_firewall_cannot_bind_is_refused_with_its_reason() -> None:
    async with table() as t:
        t.session.error = AccessDenied("rule_deny")
        await t.is_refused(PORT, 500, "rule_deny")
        await t.over()


async def test_a_client_that_leaves_while_we_bind_leaves_nothing() -> None:
    async with table() as t:
        await t.client.says(PORT)
        await t.client.socket.close(abortive=True)
        await t.ended()


async def test_pipelined_transfers_have_their_own_holes_in_turn() -> None:
    async with table() as t:
        await t.client.says(f"{PORT}\nRETR a\n{PORT}\nRETR b")
        await t.server.hears(f"{TOLD}\nRETR a")
        await t.server.hears_nothing()
        await t.answers("200 ok", "150 a")
        assert len(t.session.promises) == 1
        await t.answers("226 a")
        await t.server.hears(f"PORT {OURS.replace('.', ',')},156,66\nRETR b")
        await t.answers("200 ok", "150 b", "226 b")
        await t.over()
