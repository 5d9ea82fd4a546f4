"""Which policy file is meant when nobody says, and where it was looked for.

The order: `--policy`, `$DOORWARD_POLICY`, `./doorward.toml`, the user's own (XDG Base Directory Specification),
the machine's. A file that was named outright is never replaced by another one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from doorward.config.source import kind_of

FILE_NAME: Final = "doorward.toml"
VARIABLE: Final = "DOORWARD_POLICY"
SYSTEM_DIRECTORY: Final = Path("/etc/doorward")


class PolicyNotFound(Exception):
    """There is no policy file. `looked` holds the places, in order; the message lists them."""

    def __init__(self, message: str, looked: tuple[Path, ...]) -> None:
        self.looked = looked
        super().__init__(message)


def find_policy(explicit: Path | None = None) -> Path:
    """The policy file to use. Raises PolicyNotFound, with a message for the operator.

    A path that was named is answered if something stands there at all: reading it says best what is wrong.
    """
    for source, path in (("--policy", explicit), (f"${VARIABLE}", _from_environment())):
        if path is not None:
            if kind_of(path) == "nothing":
                raise PolicyNotFound(f"there is no policy file {path} (named by {source})", (path,))
            return path
    looked = tuple(_usual_places())
    for path in looked:
        if kind_of(path) == "file":
            return path
    places = "".join(f"\n  {path}" for path in looked)
    raise PolicyNotFound(
        f"no policy file found; name one with --policy or ${VARIABLE}. Looked for:{places}", looked
    )


def _from_environment() -> Path | None:
    named = os.environ.get(VARIABLE, "")
    return Path(named) if named else None


def _usual_places() -> Iterator[Path]:
    yield Path(FILE_NAME).absolute()
    configured = Path(os.environ.get("XDG_CONFIG_HOME", ""))
    if configured.is_absolute():  # the specification: a relative one is ignored
        yield configured / "doorward" / FILE_NAME
    elif "HOME" in os.environ:
        yield Path(os.environ["HOME"]) / ".config" / "doorward" / FILE_NAME
    yield SYSTEM_DIRECTORY / FILE_NAME
