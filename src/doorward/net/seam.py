"""Where the operating system's errors become Doorward's. Nothing above this room sees an OSError of a socket."""

from __future__ import annotations

import errno
import os
from typing import Final

from doorward.api.errors import (
    ConnectionRefused,
    DoorwardError,
    LinkError,
    OutOfResources,
    PeerReset,
    Side,
    TimedOut,
    Unreachable,
)

OUT_OF_RESOURCES: Final = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL, errno.EAGAIN, errno.ENOSPC}
)

_ERRORS: Final[dict[int, type[DoorwardError]]] = {
    errno.ECONNREFUSED: ConnectionRefused,
    errno.ECONNRESET: PeerReset,
    errno.EPIPE: PeerReset,
    errno.ECONNABORTED: PeerReset,
    errno.ENOTCONN: PeerReset,  # it was connected, so the peer has reset it since
    errno.ENETUNREACH: Unreachable,
    errno.EHOSTUNREACH: Unreachable,
    errno.ENETDOWN: Unreachable,
    errno.EHOSTDOWN: Unreachable,
    errno.ETIMEDOUT: TimedOut,
}


def translate(number: int | None, side: Side) -> DoorwardError:
    """Our error for an errno met on one side's socket."""
    number = number or 0
    kind = _ERRORS.get(number) or (OutOfResources if number in OUT_OF_RESOURCES else LinkError)
    return kind(os.strerror(number), side=side)
