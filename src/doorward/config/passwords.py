"""Passwords of users: hashing, checking, and judging the hashes that stand in a policy.

argon2id with the library's defaults (RFC 9106's second recommendation). Hashing and checking take tens of
milliseconds of processor time on purpose: never call them on an event loop.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from argon2 import PasswordHasher

PASSWORD_BYTES_MAX: Final = 255
"""What SOCKS5 can carry (RFC 1929 section 2)."""
MEMORY_KIB_MAX: Final = 2**20
ROUNDS_MAX: Final = 64
LANES_MAX: Final = 64
"""One attempt to log in must not be able to take the machine down, whatever the policy says."""

_HASH: Final = re.compile(
    r"\$argon2(?:id|i|d)\$v=19\$m=(\d{1,9}),t=(\d{1,4}),p=(\d{1,4})\$[A-Za-z0-9+/]{11,86}\$[A-Za-z0-9+/]{16,172}",
    re.ASCII,
)


def hash_password(text: str) -> str:
    """The hash of a password, with a new salt. Raises ValueError for an empty or too long password."""
    if not 1 <= len(text.encode()) <= PASSWORD_BYTES_MAX:
        raise ValueError(f"a password has 1 to {PASSWORD_BYTES_MAX} bytes")
    return _hasher().hash(text)


def verify_password(hashed: str, text: str) -> bool:
    """Whether `text` is the password that `hashed` was made from; False for anything that is no hash."""
    if hash_mistake(hashed):
        return False
    from argon2.exceptions import InvalidHashError, VerificationError

    try:
        return _hasher().verify(hashed, text)
    except (VerificationError, InvalidHashError, UnicodeEncodeError):
        return False


def hash_mistake(hashed: str) -> str:
    """What is wrong with a hash, without quoting it; nothing if it can be checked against."""
    found = _HASH.fullmatch(hashed)
    if not found:
        if hashed.startswith("$"):
            return "not an argon2 hash in full; make one with `doorward user add`"
        return "this must be an argon2 hash, not the password itself; make one with `doorward user add`"
    memory_kib, rounds, lanes = map(int, found.groups())
    if not (
        8 * lanes <= memory_kib <= MEMORY_KIB_MAX and 1 <= rounds <= ROUNDS_MAX and 1 <= lanes <= LANES_MAX
    ):
        return (
            f"the hash's cost is out of range: memory up to {MEMORY_KIB_MAX} KiB and at least 8 a lane, "
            f"{ROUNDS_MAX} rounds, {LANES_MAX} lanes"
        )
    return ""


@cache
def _hasher() -> PasswordHasher:
    """Loaded when the first password is to be checked: whoever has no users need not wait for it."""
    from argon2 import PasswordHasher

    return PasswordHasher()
