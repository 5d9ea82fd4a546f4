"""A captured program as a client."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from tests.entry.world import world

from doorward.api.contracts import SessionFlags
from doorward.api.errors import OutOfResources
from doorward.api.filters import ClientKind
from doorward.api.sessions import Launched
from doorward.capture.addresses import OWN
from doorward.entry.captured_program import CapturedProgram, LaunchedProgram

pytestmark = pytest.mark.anyio


async def test_it_is_on_this_machine_and_says_so() -> None:
    async with world() as here:
        program = CapturedProgram(here.firewall.engine, lambda: True)
        assert program.origin(4000) == ("captured", ClientKind.CAPTURED, "127.0.0.1", 4000, None)
        assert program.session.client_address == "127.0.0.1"
        program.close()
        program.close()


async def test_only_its_own_addresses_are_its_own() -> None:
    async with world() as here:
        program = CapturedProgram(here.firewall.engine, lambda: True)
        for own in ("127.0.0.1", "127.200.0.1", "::1", *OWN.values()):
            assert program.is_own(ip_address(own))
        for other in ("198.51.100.7", "::", "0.0.0.0", "10.0.0.1"):
            assert not program.is_own(ip_address(other))
        program.close()


async def test_a_session_that_a_filter_has_ended_is_followed_by_another() -> None:
    async with world() as here:
        program = CapturedProgram(here.firewall.engine, lambda: True)
        first = program.session
        here.firewall.engine.close_session(first)
        assert program.session is not first
        assert not program.session.ended
        program.close()


async def test_its_sessions_know_who_it_is() -> None:
    git = Launched("/bin/git", "/usr/bin/git", "kim", 4711, ("git", "fetch"))
    async with world() as here:
        program = CapturedProgram(here.firewall.engine, lambda: True, LaunchedProgram(git, "git fetch"))
        for _ in range(2):
            session = program.session
            assert (session.launched, session.process) == (git, "git fetch")
            assert session.programs == {"/bin/git", "/usr/bin/git", "git"}
            here.firewall.engine.close_session(session)
        program.close()


async def test_one_of_whom_nothing_is_known_goes_by_no_name() -> None:
    nobody = Launched("", "", "kim", 4711, ("nothing",))
    async with world() as here:
        for launched in (None, LaunchedProgram(nobody, "")):
            program = CapturedProgram(here.firewall.engine, lambda: True, launched)
            assert program.session.programs == frozenset()
            program.close()


async def test_with_neighbours_it_has_a_session_that_nobody_shares_and_none_after_its_end() -> None:
    git = Launched("/bin/git", "/usr/bin/git", "kim", 4711, ("git", "fetch"))
    async with world() as here:
        engine = here.firewall.engine
        others = engine.sessions.get("127.0.0.1", None)
        one, two = (
            CapturedProgram(engine, lambda: True, LaunchedProgram(git, "git", has_neighbours=True))
            for _ in range(2)
        )
        assert len({others.id, one.session_id, two.session_id}) == 3
        assert others.launched is None
        assert not one.session.flags & SessionFlags.PRIVATE
        kept = one.session
        one.close()
        one.close()
        assert kept.ended
        with pytest.raises(OutOfResources):
            _ = one.session
        assert set(engine.sessions) == {others, two.session}
        two.close()
