from __future__ import annotations

import json

import pytest
from tests.cli.conftest import Run

import doorward
from doorward.cli import version
from doorward.net import native_relay


def test_the_version_alone_or_with_everything_underneath(run: Run) -> None:
    told = json.loads(run("version", "--json").stdout)
    assert run("version").stdout == f"doorward {doorward.__version__}\nrelay    {told['relay']}\n"
    shown = run("version", "--verbose").stdout
    assert [line.split()[0] for line in shown.splitlines()] == list(told)
    assert {"doorward", "python", "kernel", "openssl", "sqlite", "relay", *version.LIBRARIES} == set(told)
    assert all(told.values())
    assert "not installed" not in shown


def test_a_library_that_is_missing_is_said_to_be(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(version, "LIBRARIES", ("no-such-library",))
    assert "no-such-library  not installed" in run("version", "-v").stdout


def test_the_relay_that_would_be_used_is_named_and_why_it_is_not_the_faster_one(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native_relay, "is_available", lambda: True)
    assert "relay    native" in run("version").stdout
    monkeypatch.setattr(native_relay, "is_available", lambda: False)
    monkeypatch.setattr(version, "NATIVE_PACKAGE", "no-such-package")
    assert "relay    python (the native one is not installed)" in run("version").stdout
    monkeypatch.setattr(version, "NATIVE_PACKAGE", "click")
    assert "relay    python (the native one, " in run("version").stdout
