"""A policy file's bytes and TOML, or why they cannot be had: missing, unreadable, too large, not text, not TOML."""

from __future__ import annotations

import re
import stat
import tomllib
from pathlib import Path
from typing import Any, Final, Literal

from doorward.config.problems import ConfigurationRefused, Problem

FILE_BYTES_MAX: Final = 16 * 2**20

_TOML_MISTAKE: Final = re.compile(r"(.*?) \(at (?:line (\d+), column (\d+)|end of document)\)", re.DOTALL)


def kind_of(path: Path) -> Literal["file", "directory", "other", "nothing"]:
    """What stands at `path`, links followed; `nothing` also where we may not look. Raises nothing."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):  # ValueError: a zero byte in the path
        return "nothing"
    if stat.S_ISREG(mode):
        return "file"
    return "directory" if stat.S_ISDIR(mode) else "other"


def read_source(path: Path) -> bytes:
    """The bytes of a policy file, at most `FILE_BYTES_MAX`. Raises ConfigurationRefused."""
    try:
        kind = kind_of(path)
        if kind in ("directory", "other"):  # a pipe would make us wait
            raise _refused(path, 0, "is a directory" if kind == "directory" else "is not a regular file")
        with path.open("rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
    except FileNotFoundError:
        raise _refused(path, 0, "there is no such file") from None
    except OSError as failure:
        raise _refused(path, 0, f"cannot be read: {failure.strerror or failure}") from None
    except ValueError:  # a zero byte in the path
        raise _refused(path, 0, "is not a path") from None
    if len(data) > FILE_BYTES_MAX:
        raise _refused(path, 0, f"is larger than {FILE_BYTES_MAX} bytes")
    return data


def parse_toml(data: bytes, path: Path) -> tuple[str, dict[str, Any]]:
    """The text of a policy and what it says. Raises ConfigurationRefused."""
    try:
        text = data.decode()
    except UnicodeDecodeError as failure:
        line = data.count(b"\n", 0, failure.start) + 1
        raise _refused(path, line, f"not UTF-8: byte 0x{data[failure.start]:02x}") from None
    if text.startswith("\ufeff"):
        raise _refused(path, 1, "begins with a byte order mark; save it as UTF-8 without one")
    try:
        return text, tomllib.loads(text)
    except RecursionError:
        raise _refused(path, 0, "lists or tables are nested too deeply") from None
    except (
        ValueError
    ) as failure:  # tomllib's own error is one; so is that of a number with thousands of digits
        raise _refused(path, *_toml_mistake(str(failure), text)) from None


def _toml_mistake(message: str, text: str) -> tuple[int, str]:
    found = _TOML_MISTAKE.fullmatch(message)
    if not found:
        return 0, f"not valid TOML: {message}"
    what, line, column = found.groups()
    if line is None:
        return text.rstrip("\n").count("\n") + 1, f"not valid TOML: {what} at the end of the file"
    return int(line), f"not valid TOML: {what} (column {column})"


def _refused(path: Path, line: int, message: str) -> ConfigurationRefused:
    return ConfigurationRefused([Problem(str(path), line, (), message)])
