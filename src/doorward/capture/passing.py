"""Short texts and descriptors between the launcher and its helper, over a pair of Unix sockets that keep packets apart.

A text is at most `TEXT_BYTES_MAX` bytes; a packet that holds none is the other side's end.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Sequence
from typing import Final

TEXT_BYTES_MAX: Final = 4096
# What the kernel passes in one packet (SCM_MAX_FD).
DESCRIPTORS_MAX: Final = 253


def pair() -> tuple[socket.socket, socket.socket]:
    """Both ends. Raises OSError."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def send(channel: socket.socket, text: str, descriptors: Sequence[int] = ()) -> None:
    """Send one packet. The descriptors stay the caller's. Raises OSError, BlockingIOError if there is no room."""
    socket.send_fds(channel, [text.encode()[:TEXT_BYTES_MAX]], list(descriptors))


def receive(channel: socket.socket) -> tuple[str, list[int]]:
    """The next packet; "" is the end. The descriptors are the caller's.

    Raises OSError, also for a packet that was cut; then no descriptor is left open.
    """
    data, descriptors, flags, _ = socket.recv_fds(channel, TEXT_BYTES_MAX, DESCRIPTORS_MAX)
    if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
        for fd in descriptors:
            os.close(fd)
        raise OSError(errno.EMSGSIZE, "a packet of the helper's was cut")
    for fd in descriptors:
        os.set_inheritable(fd, False)
    return data.decode(errors="replace"), descriptors
