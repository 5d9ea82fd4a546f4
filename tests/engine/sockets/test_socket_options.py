"""Which options are a filter's to set."""

from __future__ import annotations

import socket

import pytest

from doorward.api import BadArgument, NotSupported
from doorward.engine.sockets.socket_options import (
    BUFFER_BYTES_MAX,
    READABLE,
    SETTABLE,
    checked,
    expect_readable,
)


@pytest.mark.parametrize(
    "option",
    [
        (socket.SOL_SOCKET, socket.SO_BINDTODEVICE),
        (socket.SOL_SOCKET, socket.SO_MARK),
        (socket.SOL_SOCKET, socket.SO_REUSEPORT),
        (socket.SOL_SOCKET, socket.SO_LINGER),
        (socket.SOL_SOCKET, socket.SO_DONTROUTE),
        (socket.IPPROTO_IP, socket.IP_TRANSPARENT),
        (socket.IPPROTO_IP, 4),  # IP_OPTIONS: source routes
        (socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT),
    ],
)
def test_what_leads_elsewhere_or_changes_who_may_use_it_is_not(option: tuple[int, int]) -> None:
    assert option not in SETTABLE
    with pytest.raises(NotSupported):
        checked(option, 1)


def test_what_may_be_set_may_be_read() -> None:
    assert SETTABLE < READABLE
    for option in READABLE:
        expect_readable(option)
    for option in SETTABLE:
        checked(option, 1)


def test_values_that_nobody_can_mean() -> None:
    buffer = (socket.SOL_SOCKET, socket.SO_SNDBUF)
    checked(buffer, BUFFER_BYTES_MAX)
    for value in (BUFFER_BYTES_MAX + 1, -2):
        with pytest.raises(BadArgument):
            checked(buffer, value)
    with pytest.raises(BadArgument):
        checked((socket.IPPROTO_TCP, socket.TCP_NODELAY), 2**31)
