"""The command: what it takes, and what it says of how it measured. A run without peers is a whole run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from bench.__main__ import main


def test_an_unknown_peer_or_figure_is_refused_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--peers", "direct,no-such-proxy"])
    assert "unknown: no-such-proxy" in capsys.readouterr().err


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler (cc)")
def test_a_run_is_printed_and_kept_and_leaves_out_visibly_who_is_not_installed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--only", "messages", "--peers", "direct,dante", "--program", "danted=/no/such/danted"]
    assert main([*words, "--rounds", "1", "--seconds", "0.1", "--output", str(tmp_path)]) == 0
    said = capsys.readouterr()
    assert "left out dante: danted is not installed" in said.err
    assert "### Round trips of 64 bytes" in said.out
    (page,) = tmp_path.glob("*-messages.md")
    assert "Clients come from 16 addresses." in page.read_text()
    kept = json.loads(page.with_suffix(".json").read_text())
    assert [sample["peer"] for sample in kept["samples"]] == ["direct"]
    assert {bar["verdict"] for bar in kept["bars"]} == {"not measured"}
