from __future__ import annotations

import json

import pytest
from tests.cli.conftest import Run

import doorward
from doorward.cli import version


def test_the_version_alone_or_with_everything_underneath(run: Run) -> None:
    assert run("version").stdout == f"doorward {doorward.__version__}\n"
    shown = run("version", "--verbose").stdout
    told = json.loads(run("version", "--json").stdout)
    assert [line.split()[0] for line in shown.splitlines()] == list(told)
    assert {"doorward", "python", "kernel", "openssl", "sqlite", "relay", *version.LIBRARIES} == set(told)
    assert all(told.values())
    assert "not installed" not in shown


def test_a_library_that_is_missing_is_said_to_be(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(version, "LIBRARIES", ("no-such-library",))
    assert "no-such-library  not installed" in run("version", "-v").stdout
