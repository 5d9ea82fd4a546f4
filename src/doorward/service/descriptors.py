"""How many clients fit into the descriptors this process may have."""

from __future__ import annotations

import resource
from typing import Final

# Listeners, log, control socket, pipes of the relay, and lookups.
RESERVED: Final = 256
PER_CLIENT: Final = 2


def raise_limit() -> int:
    """Raise the soft limit to the hard one, as far as that is allowed, and say what it is now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == hard:
        return soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):
        return soft
    return hard


def clients_that_fit(descriptors: int) -> int:
    """One leg to each side, after the reserve."""
    return max(1, (descriptors - min(RESERVED, descriptors // 4)) // PER_CLIENT)
