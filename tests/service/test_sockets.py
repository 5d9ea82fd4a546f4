from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import msgspec
import pytest

from doorward.service.channel import SOCKETS_MAX
from doorward.service.listeners import CannotListen
from doorward.service.reloading import policy_of
from doorward.service.share import Bound
from doorward.service.sockets import SharedSockets, wanted_by

FOUR, SIX = Bound("proxy", "127.0.0.1", 0), Bound("proxy", "::1", 0)


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def port_of(descriptor: int) -> int:
    with socket.socket(fileno=socket.dup(descriptor)) as sock:
        port: int = sock.getsockname()[1]
        return port


def listens(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address, 5).close()
    except ConnectionRefusedError:
        return False
    return True


def test_every_place_has_a_socket_for_every_address() -> None:
    shared = SharedSockets(3)
    shared.commit(shared.prepare([FOUR, SIX]))
    names, first = shared.of(0)
    assert names == [FOUR, SIX]
    assert not set(first) & set(shared.of(1)[1])
    for place in range(3):
        assert [port_of(fd) for fd in shared.of(place)[1]] == [port for _, port in shared.addresses]
    shared.close()
    shared.close()
    assert shared.addresses == []


def test_what_is_called_off_leaves_the_old_and_nothing_else() -> None:
    shared = SharedSockets(2)
    shared.commit(shared.prepare([FOUR]))
    [old] = shared.addresses
    before = descriptors()
    prepared = shared.prepare([FOUR, SIX])
    assert list(shared.new(prepared)) == [SIX]
    shared.abandon(prepared)
    taken = Bound("proxy", *old)
    with pytest.raises(CannotListen, match=str(old[1])):
        shared.prepare([SIX, taken])
    assert descriptors() == before
    assert listens(old)
    shared.close()


def test_addresses_that_are_not_named_any_more_are_left() -> None:
    shared = SharedSockets(2)
    shared.commit(shared.prepare([FOUR]))
    [old] = shared.addresses
    shared.commit(shared.prepare([SIX]))
    assert not listens(old)
    assert listens(shared.addresses[0])
    shared.close()


def test_more_addresses_than_fit_into_one_message_are_refused() -> None:
    wanted = [Bound("tcp", "127.0.0.1", 10_000 + number) for number in range(SOCKETS_MAX + 1)]
    with pytest.raises(CannotListen, match=str(SOCKETS_MAX)):
        SharedSockets(2).prepare(wanted)


def test_published_servers_have_theirs_beside_those_of_the_proxies() -> None:
    shared = SharedSockets(2)
    ends = [FOUR, Bound("tcp", "127.0.0.1", 0), Bound("udp", "::1", 0)]
    shared.commit(shared.prepare(ends))
    assert shared.of(1)[0] == ends
    assert len(shared.addresses) == 1  # what people are told where the proxies are
    kinds = [socket.socket(fileno=socket.dup(fd)) for fd in shared.of(0)[1]]
    assert [sock.type for sock in kinds] == [socket.SOCK_STREAM, socket.SOCK_STREAM, socket.SOCK_DGRAM]
    for sock in kinds:
        sock.close()
    shared.close()


def test_what_only_one_process_can_do_is_refused() -> None:
    configuration = policy_of(b'[listen]\nproxy = ["127.0.0.1:0"]\n', Path("/nowhere/doorward.toml"))
    assert wanted_by(configuration) == [FOUR]
    taking: Any = object()
    with pytest.raises(CannotListen, match="workers = 1"):
        wanted_by(msgspec.structs.replace(configuration, transparent=taking))
