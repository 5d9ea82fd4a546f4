from __future__ import annotations

import os
from pathlib import Path

import pytest

from doorward.config.lines import Lines
from doorward.config.problems import Report
from doorward.config.secrets import SECRET_BYTES_MAX, existing_file, read_secret


def read(directory: Path, data: bytes | None, mode: int = 0o600) -> tuple[str, list[str]]:
    report = Report("p", Lines(""))
    if data is not None:
        file = directory / "secret"
        file.write_bytes(data)
        file.chmod(mode)
    return read_secret(directory, "secret", ("password_file",), report), list(map(str, report.problems()))


@pytest.mark.parametrize("data", [b"hush hush", b"hush hush\n", b"hush hush\r\n"])
def test_the_secret_is_the_only_line(tmp_path: Path, data: bytes) -> None:
    assert read(tmp_path, data) == ("hush hush", [])


@pytest.mark.parametrize("data", [b"", b"\n", b"hush\nhush\n", b"\xff", b"h" * (SECRET_BYTES_MAX + 1), None])
def test_what_is_no_secret_is_reported_and_not_quoted(tmp_path: Path, data: bytes | None) -> None:
    secret, (problem,) = read(tmp_path, data)
    assert secret == ""
    assert "hush" not in problem


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602])
def test_a_secret_that_others_can_read_or_change_is_doubted(tmp_path: Path, mode: int) -> None:
    secret, (problem,) = read(tmp_path, b"hush", mode)
    assert secret == "hush"
    assert "chmod 600" in problem
    assert "warning" in problem


def test_a_pipe_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "secret")
    report = Report("p", Lines(""))
    assert existing_file(tmp_path, "secret", ("ca_file",), report) is None
    assert report.failed
