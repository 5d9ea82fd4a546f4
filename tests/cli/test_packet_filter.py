from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.cli.conftest import Run

from doorward.packetfilter.helper import HelperUnavailable
from doorward.service import packet_filter_helper


def test_users_have_names_or_numbers(run: Run, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[tuple[Path, int]] = []

    def serve(path: Path, user: int, say: Callable[[str], None]) -> None:
        say("it \x1b[0m serves")
        served.append((path, user))

    monkeypatch.setattr(packet_filter_helper, "serve", serve)
    for user in ("root", "0", "4711"):
        result = run("packet-filter", "--socket", "s", "--user", user)
        assert result.exit_code == 0
        assert "\x1b" not in result.stderr
    assert served == [(Path("s"), 0), (Path("s"), 0), (Path("s"), 4711)]
    assert run("packet-filter", "--socket", "s", "--user", "nobody at all").exit_code == 2
    assert run("packet-filter", "--socket", "s", "--user", "9" * 40).exit_code == 2


def test_what_is_missing_is_said_with_status_69(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def serve(*_: object) -> None:
        raise HelperUnavailable("another helper answers on it")

    monkeypatch.setattr(packet_filter_helper, "serve", serve)
    result = run("packet-filter", "--socket", "s", "--user", str(os.getuid()))
    assert result.exit_code == 69
    assert "another helper" in result.stderr
