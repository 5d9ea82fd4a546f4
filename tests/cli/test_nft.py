from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.cli.conftest import Run
from tests.service.test_packet_filter_table import HEAD

from doorward.cli import nft
from doorward.packetfilter.loaded import LoadedUnreadable


def test_without_a_gateway_there_is_nothing_to_show(run: Run) -> None:
    result = run("nft", "show")
    assert result.exit_code == 1
    assert "no [transparent]" in result.stderr


def test_the_table_is_shown_in_both_languages(run: Run, home: Path) -> None:
    (home / "doorward.toml").write_text(HEAD)
    assert run("nft", "show").stdout.startswith("table inet doorward\ndelete table inet doorward\n")
    assert (
        json.loads(run("nft", "show", "--json").stdout)["nftables"][0]["add"]["table"]["name"] == "doorward"
    )


def test_a_difference_is_told_by_lines_and_status(
    run: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "doorward.toml").write_text(HEAD)
    monkeypatch.setattr(nft, "wanted_lines", lambda layout: ["a", "b"])
    monkeypatch.setattr(nft, "loaded_lines", lambda: ["a", "b"])
    assert (run("nft", "diff").exit_code, run("nft", "diff").stdout) == (0, "")
    monkeypatch.setattr(nft, "loaded_lines", lambda: ["a", "\x1b[31mc"])
    result = run("nft", "diff")
    assert result.exit_code == 1
    assert "+b" in result.stdout.splitlines()
    assert "\x1b" not in result.stdout


def test_what_cannot_be_read_is_said(run: Run, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "doorward.toml").write_text(HEAD)

    def unreadable() -> list[str]:
        raise LoadedUnreadable("reading needs CAP_NET_ADMIN")

    monkeypatch.setattr(nft, "loaded_lines", unreadable)
    result = run("nft", "diff")
    assert result.exit_code == 2
    assert "CAP_NET_ADMIN" in result.stderr


@pytest.mark.parametrize("word", ["show", "diff"])
def test_a_filter_that_does_not_load_is_said(run: Run, home: Path, word: str) -> None:
    (home / "doorward.toml").write_text(HEAD + '[[filter]]\nname = "x"\nuse = "gone.py"\n')
    result = run("nft", word)
    assert result.exit_code in (1, 78)
    assert "gone.py" in result.stderr
