"""AUTH TLS: refused, or passed on with the ports that the rule names."""

from __future__ import annotations

import pytest
from tests.filters.ftp.rig import SERVER, table

from doorward.api import Refuse

pytestmark = pytest.mark.anyio

RANGE = ("connect", SERVER, 50000, 50100, {"multiple": True, "timeout_s": None})
PASS = {"tls": "pass", "passive_ports": "50000-50100"}


@pytest.mark.parametrize("line", ["AUTH TLS", "auth ssl", "AUTH TLS-P", "AUTH GSSAPI", "AUTH", "AUTH TLS "])
async def test_by_default_it_is_refused_and_the_conversation_goes_on_in_the_clear(line: str) -> None:
    async with table() as t:
        await t.is_refused(line, 534, "ftp_tls_refused")
        await t.passes("USER kim")
        await t.answers("331 password")
        await t.over()


async def test_mechanisms_that_are_not_tls_are_refused_always() -> None:
    async with table(PASS) as t:
        await t.is_refused("AUTH GSSAPI", 534, "ftp_tls_refused")
        await t.over()


async def test_after_it_was_agreed_nothing_is_read_any_more() -> None:
    async with table(PASS) as t:
        await t.passes("AUTH tls")
        assert t.session.open == []
        await t.answers("234 go ahead")
        assert await t.ended() is None  # what follows flows past the filter
        assert t.session.open == [RANGE]


async def test_without_ports_there_are_no_data_connections() -> None:
    async with table({"tls": "pass"}) as t:
        await t.passes("AUTH TLS")
        await t.answers("234 go ahead")
        assert await t.ended() is None
        assert t.session.promises == []


async def test_a_server_that_refuses_is_still_read() -> None:
    async with table(PASS) as t:
        await t.passes("AUTH TLS")
        await t.answers("502 what")
        await t.passes("NOOP")
        await t.answers("200 ok")
        assert t.session.promises == []
        await t.over()


async def test_commands_behind_it_wait_for_the_answer_and_pass_if_it_is_no() -> None:
    async with table(PASS) as t:
        await t.client.says("AUTH TLS\nNOOP")
        await t.server.hears("AUTH TLS")
        await t.answers("502 what")
        await t.server.hears("NOOP")
        await t.over()


@pytest.mark.parametrize("ahead", ["client", "server"])
async def test_who_speaks_ahead_of_tls_is_cut_off(ahead: str) -> None:
    async with table(PASS) as t:
        await t.client.says("AUTH TLS\nUSER kim" if ahead == "client" else "AUTH TLS")
        await t.server.hears("AUTH TLS")
        await t.server.says("234 go ahead\n230 you are root" if ahead == "server" else "234 go ahead")
        error = await t.ended()
        assert isinstance(error, Refuse)
        assert error.reason == "ftp_tls_early"
        assert t.session.promises == []
