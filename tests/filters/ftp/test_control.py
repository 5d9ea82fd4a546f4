"""Control connections, line by line: what passes, what is answered here, what ends it."""

from __future__ import annotations

import pytest
from tests.filters.ftp.rig import SERVER, table

from doorward.api import Refuse
from doorward.filters.ftp.dialogue import PENDING_MAX

pytestmark = pytest.mark.anyio


async def test_a_conversation_passes_as_it_was_said() -> None:
    async with table() as t:
        await t.passes("USER kim")
        await t.answers("331 password")
        await t.passes("PASS  with spaces ")
        await t.answers("230-Welcome\n  to this server\n230 logged in")
        await t.client.says(b"RETR \xc3\xa9\xff\r\n")
        assert await t.server.socket.recv() == b"RETR \xc3\xa9\xff\r\n"
        await t.answers("150 here it comes", "226 done")
        await t.passes("XYZZY what is this", "QUIT")
        await t.answers("500 unknown", "221 bye")
        await t.over()
        assert t.connection.notes == []


async def test_lines_may_come_in_any_pieces_and_leave_whole() -> None:
    async with table() as t:
        for byte in b"noop\r\n":
            await t.client.says(bytes([byte]))
        await t.server.hears("NOOP")
        for byte in b"200-a\r\nb\r\n200 c\r\n":
            await t.server.says(bytes([byte]))
        await t.client.hears("200-a\nb\n200 c")
        await t.client.says(b"NOOP\r\nQU")
        await t.server.hears("NOOP")
        await t.over()  # an unfinished line reaches nobody


async def test_nothing_reaches_the_server_before_it_has_said_who_it_is() -> None:
    async with table(greeted=False) as t:
        await t.client.says("USER kim\nLPRT 4,4,1,2,3,4,2,1,2")
        await t.answers("120 wait")
        assert not t.connection.notes
        await t.server.says("220 ready")
        await t.client.hears("220 ready")
        await t.server.hears("USER kim")
        await t.server.says("331 password")
        await t.client.hears("331 password\n502 Refused by the firewall: ftp_command_denied")
        await t.over()


async def test_our_answers_keep_their_place_among_pipelined_commands() -> None:
    async with table({"read_only": True}) as t:
        await t.client.says("NOOP\nDELE a\nPWD\nSITE CHMOD 777 a\nMKD b")
        await t.server.hears("NOOP\nPWD")
        await t.server.says("200 ok")
        await t.client.hears("200 ok\n550 Refused by the firewall: ftp_read_only")
        await t.server.says('257 "/"')
        await t.client.hears('257 "/"' + 2 * "\n550 Refused by the firewall: ftp_read_only")
        await t.over()


@pytest.mark.parametrize(
    "line", ["STOR a", "STOU", "APPE a", "DELE a", "RNFR a", "RNTO b", "RMD a", "MKD a", "SITE CHMOD 777 a", "XYZZY",
             "MFMT 1 a"]
)  # fmt: skip
async def test_read_only_means_that_nothing_that_might_write_reaches_the_server(line: str) -> None:
    async with table({"read_only": True}) as t:
        await t.is_refused(line, 550, "ftp_read_only")
        await t.over()
    async with table() as t:
        await t.passes(line)
        await t.answers("200 ok")
        await t.over()


async def test_denied_commands_are_refused_and_others_pass() -> None:
    async with table({"commands_denied": ["site"]}) as t:
        await t.is_refused("Site HELP", 550, "ftp_command_denied")
        await t.passes("DELE a")
        await t.answers("250 gone")
        await t.over()


@pytest.mark.parametrize("verb", ["LPRT", "LPSV", "CPSV", "SPSV"])
async def test_other_ways_to_name_an_address_are_refused(verb: str) -> None:
    async with table() as t:
        await t.is_refused(f"{verb} 4,4,10,0,0,1,2,1,2", 502, "ftp_command_denied")
        await t.over()


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "ftp_bad_command"),
        (b"\x16\x03\x01\x02\x00\r\n", "ftp_nul"),
        (b"NOOP\r\nRETR a\nDELE b\r\n", "ftp_bare_lf"),
        (b"RETR a\rDELE b\r\n", "ftp_bare_cr"),
        (b" PORT 10,0,0,1,4,5\r\n", "ftp_bad_command"),
        (b"x" * 10_000, "ftp_line_too_long"),
        (b"\xff\xfa\r\n", "ftp_telnet"),
    ],
)
async def test_a_client_that_does_not_speak_ftp_is_cut_off(said: bytes, reason: str) -> None:
    async with table() as t:
        await t.client.says(said)
        error = await t.ended()
        assert isinstance(error, Refuse)
        assert error.reason == reason


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (b"SSH-2.0-OpenSSH\r\n", "ftp_bad_reply"),
        (b"HTTP/1.1 400 no\r\n\r\n", "ftp_bad_reply"),
        (b"220 a\rb\r\n", "ftp_bare_cr"),
        (b"220 ok\r\n257 \"a\n227 Entering Passive Mode (10,0,0,1,4,5)\"\r\n", "ftp_bare_lf"),
        (b"220-" + b"x\r\n220-" * 5000, "ftp_reply_too_long"),
        (b"220 " + b"x" * 10_000, "ftp_line_too_long"),
    ],
)  # fmt: skip
async def test_a_server_that_does_not_speak_ftp_is_cut_off(said: bytes, reason: str) -> None:
    async with table(greeted=False) as t:
        await t.server.says(said)
        error = await t.ended()
        assert isinstance(error, Refuse)
        assert error.reason == reason
        assert t.session.promises == []


async def test_a_server_may_say_goodbye_unasked() -> None:
    async with table() as t:
        await t.answers("421 too slow")
        await t.server.leaves()
        await t.client.hears_the_end()
        await t.client.leaves()
        assert await t.ended() is None


@pytest.mark.parametrize("code", [227, 228, 229, 234])
async def test_a_reply_that_makes_the_client_act_ends_it_unless_it_was_asked_for(code: int) -> None:
    async with table() as t:
        await t.passes("NOOP")
        await t.server.says(f"{code} ({SERVER.replace('.', ',')},19,137) (|||5001|)")
        error = await t.ended()
        assert isinstance(error, Refuse)
        assert error.reason == "ftp_unasked_reply"
        assert t.session.promises == []


async def test_telnet_before_abor_is_left_out() -> None:
    async with table() as t:
        await t.client.says(b"\xff\xf4\xff\xf2ABOR\r\n")
        await t.server.hears("ABOR")
        await t.answers("226 aborted")
        await t.over()


async def test_so_many_commands_wait_and_no_more() -> None:
    async with table() as t:
        await t.client.says("\n".join(["NOOP"] * (PENDING_MAX + 5)))
        await t.server.hears("\n".join(["NOOP"] * PENDING_MAX))
        await t.server.hears_nothing()
        await t.server.says("200 ok\n200 ok")
        await t.server.hears("NOOP\nNOOP")
        await t.server.leaves()


async def test_our_answer_is_not_lost_behind_a_reply_that_never_comes() -> None:
    async with table({"read_only": True}) as t:
        await t.passes("RETR a", "ABOR")
        await t.answers("226 both are done")
        await t.client.says("DELE a\nPASV")
        await t.server.hears("PASV")
        await t.server.says(f"227 ({SERVER.replace('.', ',')},19,137)")
        passive = f"227 Entering Passive Mode ({SERVER.replace('.', ',')},19,137)."
        await t.client.hears(f"550 Refused by the firewall: ftp_read_only\n{passive}")
        await t.over()


async def test_the_other_side_may_go_on_when_one_has_ended() -> None:
    async with table() as t:
        await t.passes("QUIT")
        await t.client.leaves()
        await t.server.hears_the_end()
        await t.answers("221-bye\n221 bye")
        await t.server.leaves()
        await t.client.hears_the_end()
        assert await t.ended() is None
