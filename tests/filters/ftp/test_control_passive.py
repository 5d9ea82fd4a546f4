"""Passive transfers: the client may connect to what the server said, and to nothing else."""

from __future__ import annotations

import pytest
from tests.filters.ftp.rig import SERVER, Table, table

pytestmark = pytest.mark.anyio

SIX = SERVER.replace(".", ",")
HOLE = ("connect", SERVER, 5001)
PASSIVE = f"227 Entering Passive Mode ({SIX},19,137)."
EXTENDED = "229 Entering Extended Passive Mode (|||5001|)"


async def hole(t: Table, verb: str = "PASV") -> None:
    await t.passes(verb)
    await t.answers(PASSIVE if verb == "PASV" else EXTENDED)
    assert t.session.open == [HOLE]


@pytest.mark.parametrize("verb", ["PASV", "EPSV"])
async def test_the_hole_is_there_when_the_client_hears_of_it_and_gone_when_the_transfer_is_over(
    verb: str,
) -> None:
    async with table() as t:
        await hole(t, verb)
        await t.passes("RETR a")
        await t.answers("150 here it comes")
        assert t.session.open == [HOLE]
        await t.answers("226 done")
        assert t.session.open == []
        await t.over()


async def test_the_client_reads_what_was_judged_however_the_server_had_put_it() -> None:
    async with table() as t:
        await t.passes("PASV")
        await t.server.says(f"227-look here\n10.0.0.1, then\n227 = {SIX},19,137 (10,0,0,1,4,5)")
        await t.client.hears(PASSIVE)
        assert t.session.open == [HOLE]
        await t.passes("EPSV 1")
        await t.server.says("229 go (!!!5002!)")
        await t.client.hears("229 Entering Extended Passive Mode (|||5002|)")
        assert t.session.open == [("connect", SERVER, 5002)]
        await t.over()


@pytest.mark.parametrize(
    ("verb", "reply", "reason"),
    [
        ("PASV", "227 (10,0,0,1,19,137)", "ftp_bounce"),
        ("PASV", "227 (127,0,0,1,19,137)", "ftp_bounce"),
        ("PASV", f"227 ({SIX},3,255)", "ftp_privileged_port"),
        ("PASV", f"227 ({SIX},0,0)", "ftp_bad_address"),
        ("PASV", f"227 ({SIX},19,256)", "ftp_bad_address"),
        ("PASV", f"227 ({SIX},19,137,1)", "ftp_bad_address"),
        ("PASV", "227 (198,51,100,01,19,137)", "ftp_bad_address"),
        ("PASV", "227 come in", "ftp_bad_address"),
        ("EPSV", "229 (|||22|)", "ftp_privileged_port"),
        ("EPSV", "229 (|||0|)", "ftp_bad_address"),
        ("EPSV", "229 (|||99999999|)", "ftp_bad_address"),
        ("EPSV", f"229 (|1|{SERVER}|5001|)", "ftp_bad_address"),
    ],
)
async def test_a_server_that_sends_the_client_elsewhere_is_not_believed(
    verb: str, reply: str, reason: str
) -> None:
    async with table() as t:
        await hole(t)
        await t.passes(verb)
        await t.server.says(reply)
        await t.client.hears(f"425 Refused by the firewall: {reason}")
        assert t.session.open == []
        assert t.connection.notes == [reason]
        assert [alert["name"] for alert in t.alerts] == ["ftp_bounce"] * (reason == "ftp_bounce")
        await t.passes("NOOP")
        await t.answers("200 still here")
        await t.over()


async def test_the_next_one_closes_the_old_hole_at_once() -> None:
    async with table() as t:
        await hole(t)
        await t.passes("EPSV")
        assert t.session.open == []
        await t.answers(EXTENDED)
        assert t.session.open == [HOLE]
        await t.passes("REIN")
        assert t.session.open == []
        await t.answers("220 again")
        await hole(t)
        await t.passes("ABOR")
        assert t.session.open == []
        await t.over()


async def test_a_failed_transfer_closes_its_hole() -> None:
    async with table() as t:
        await hole(t)
        await t.passes("RETR nothing")
        await t.answers("550 no such file")
        assert t.session.open == []
        await t.over()


async def test_what_is_no_transfer_leaves_the_hole_open() -> None:
    async with table() as t:
        await hole(t)
        await t.passes("REST 100", "SIZE a")
        await t.answers("350 ok", "550 no")
        assert t.session.open == [HOLE]
        await t.over()


async def test_pipelined_transfers_have_their_own_holes_in_turn() -> None:
    async with table() as t:
        await t.client.says("PASV\nRETR a\nPASV\nRETR b\nNOOP")
        await t.server.hears("PASV\nRETR a")
        await t.server.hears_nothing()  # the next data connection waits for the end of this one
        await t.answers(PASSIVE)
        assert t.session.open == [HOLE]
        await t.answers("150 a", "226 a")
        await t.server.hears("PASV")
        assert t.session.open == []
        await t.server.hears("RETR b\nNOOP")
        await t.answers("227 Entering Passive Mode (198,51,100,1,19,138).")
        assert t.session.open == [("connect", SERVER, 5002)]
        await t.answers("150 b", "226 b", "200 ok")
        assert t.session.open == []
        await t.over()


async def test_a_refused_passive_command_opens_nothing() -> None:
    async with table() as t:
        await t.passes("PASV")
        await t.answers(f"500 not today ({SIX},19,137)")
        await t.passes("EPSV ALL")
        await t.answers("200 so be it")
        assert t.session.promises == []
        await t.over()


async def test_the_hole_closes_when_the_server_leaves() -> None:
    async with table() as t:
        await hole(t)
        await t.server.leaves()
        await t.client.hears_the_end()
        assert t.session.open == []


async def test_the_hole_closes_when_the_client_is_cut_off() -> None:
    async with table() as t:
        await hole(t)
        await t.client.says(b"\0\r\n")
        assert await t.ended() is not None
        assert t.session.open == []


async def test_many_transfers_leave_nothing() -> None:
    async with table() as t:
        for _ in range(200):
            await hole(t)
            await t.passes("RETR a")
            await t.answers("150 a", "226 a")
        assert len(t.session.promises) == 200
        assert t.session.open == []
        await t.over()
