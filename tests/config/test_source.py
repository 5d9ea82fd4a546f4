from __future__ import annotations

import os
from pathlib import Path

import pytest

from doorward.config.problems import ConfigurationRefused
from doorward.config.source import FILE_BYTES_MAX, kind_of, parse_toml, read_source


def refusal_of(path: Path, data: bytes | None = None) -> str:
    with pytest.raises(ConfigurationRefused) as refused:
        parse_toml(read_source(path) if data is None else data, path)
    (problem,) = refused.value.problems
    return str(problem).removeprefix(str(path))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert refusal_of(tmp_path / "none.toml") == ": there is no such file"


def test_a_directory_is_no_policy(tmp_path: Path) -> None:
    assert refusal_of(tmp_path) == ": is a directory"


def test_a_pipe_is_refused_rather_than_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert refusal_of(tmp_path / "pipe") == ": is not a regular file"


def test_a_path_below_a_file_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert refusal_of(tmp_path / "file" / "p.toml") == ": cannot be read: Not a directory"


def test_a_zero_byte_in_the_path_is_refused() -> None:
    with pytest.raises(ConfigurationRefused, match="is not a path"):
        read_source(Path("a\0b"))


def test_a_file_over_the_limit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "big.toml"
    with path.open("wb") as file:
        file.truncate(FILE_BYTES_MAX + 1)
    assert refusal_of(path) == f": is larger than {FILE_BYTES_MAX} bytes"
    with path.open("wb") as file:
        file.truncate(FILE_BYTES_MAX)
    assert len(read_source(path)) == FILE_BYTES_MAX


@pytest.mark.parametrize(
    ("data", "refusal"),
    [
        (b"a = 1\nb = \xff", ":2: not UTF-8: byte 0xff"),
        (b"\xef\xbb\xbfa = 1", ":1: begins with a byte order mark; save it as UTF-8 without one"),
        (b"a = 1\nb = \n", ":2: not valid TOML: Invalid value (column 5)"),
        (b"a = 1\n\nb = [1,\n\n", ":3: not valid TOML: Invalid value at the end of the file"),
        (b"a = 1\na = 2\n", ":2: not valid TOML: Cannot overwrite a value (column 6)"),
        (b"a = " + b"[" * 100_000, ": lists or tables are nested too deeply"),
    ],
)
def test_text_that_is_not_toml_is_refused_with_its_line(data: bytes, refusal: str) -> None:
    assert refusal_of(Path("p.toml"), data) == refusal


def test_a_number_with_thousands_of_digits_is_refused() -> None:
    assert refusal_of(Path("p.toml"), b"a = " + b"9" * 5_000).startswith(": not valid TOML: ")


def test_what_stands_at_a_path_is_known_without_raising(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    os.mkfifo(tmp_path / "pipe")
    kinds = [
        kind_of(tmp_path / name) for name in ("file", "", "pipe", "none", "file/below", "x" * 300, "a\0b")
    ]
    assert kinds == ["file", "directory", "other", "nothing", "nothing", "nothing", "nothing"]
