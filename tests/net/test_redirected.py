"""Where a connection was going. What a redirect has changed is shown by tests/end_to_end/test_gateway.py."""

from __future__ import annotations

import ipaddress
import socket

import pytest

from doorward.net.redirected import before_redirect, left_as_it_was


@pytest.mark.parametrize("original", [left_as_it_was, before_redirect])
@pytest.mark.parametrize("host", ["127.0.0.3", "::1"])
def test_of_what_was_not_changed_it_is_where_it_came_to(original: object, host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection((host, port)), listener.accept()[0] as taken:
            assert callable(original)
            assert original(taken) == (ipaddress.ip_address(host), port)


@pytest.mark.parametrize("original", [left_as_it_was, before_redirect])
def test_of_what_is_gone_nobody_knows(original: object) -> None:
    sock = socket.socket()
    sock.close()
    assert callable(original)
    with pytest.raises(OSError, match="Bad file descriptor"):
        original(sock)
