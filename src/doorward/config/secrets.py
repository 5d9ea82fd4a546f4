"""Files with secrets: a password on its only line, or a key. What they hold is never quoted."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Final

from doorward.config.lines import KeyPath
from doorward.config.problems import Report
from doorward.config.source import kind_of

SECRET_BYTES_MAX: Final = 4096
_OTHERS: Final = stat.S_IRGRP | stat.S_IROTH | stat.S_IWGRP | stat.S_IWOTH


def read_secret(directory: Path, name: str, where: KeyPath, report: Report) -> str:
    """The text of the file without its final line end; what is wrong with it is reported, and "" comes back."""
    path = existing_file(directory, name, where, report)
    if path is None:
        return ""
    try:
        with path.open("rb") as file:
            data = file.read(SECRET_BYTES_MAX + 1)
        text = data.decode()
    except OSError as failure:
        report.error(where, f'"{path}" cannot be read: {failure.strerror or failure}')
        return ""
    except UnicodeDecodeError:
        report.error(where, f'"{path}" is not UTF-8')
        return ""
    text = text.removesuffix("\n").removesuffix("\r")
    if len(data) > SECRET_BYTES_MAX or "\n" in text or not text:
        report.error(where, f'"{path}" must hold the secret as its only line')
        return ""
    doubt_mode(path, where, report)
    return text


def existing_file(directory: Path, name: str, where: KeyPath, report: Report) -> Path | None:
    """The file's absolute path; None, reported, if there is none. A pipe is none: it would make us wait."""
    if not name:
        return None  # an empty text has been reported already
    path = directory / name
    if kind_of(path) != "file":
        report.error(where, f'there is no file "{path}"')
        return None
    return path


def doubt_mode(path: Path, where: KeyPath, report: Report) -> None:
    """Warn of a secret that others on this machine can read or change."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return  # it was read a moment ago; nobody can read it any more
    if mode & _OTHERS:
        report.warning(where, f'others can read or change "{path}"; `chmod 600` keeps it to its owner')
