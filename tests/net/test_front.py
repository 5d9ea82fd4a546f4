"""The front on a loop: each client comes to whoever is to have it, once, and nothing is left behind."""

from __future__ import annotations

import errno
import resource
import socket
from collections.abc import Iterator

import pytest
from tests.net.front_house import CLIENT_ADDRESS, GREETING, House, accepted, listening, request, silent
from tests.net.wires import Peer, open_descriptors, turns, until

from doorward.api.errors import LinkError, Side
from doorward.net.front import Front, FrontListener
from doorward.net.native_relay import is_available
from doorward.net.poller import Poller

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(not is_available(), reason="doorward_native is not built: make native"),
]


@pytest.fixture
def house(poller: Poller, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    house = House(poller, monkeypatch)
    yield house
    house.close()


async def test_who_may_go_is_connected_answered_and_the_relay_s(house: House) -> None:
    with listening() as server:
        port = server.getsockname()[1]
        client, number = await house.asks(port)
        assert house.asking == [(number, client.socket.getsockname(), request(port))]
        house.dial(number, port)
        with await accepted(server) as outer:
            assert await client.read(6) == b"\x05\x00\x05\x00\x00\x01"
            assert await client.read(6) == b"\x7f\x00\x00\x01" + outer.socket.getpeername()[1].to_bytes(
                2, "big"
            )
            await client.send(b"to the server")
            assert await outer.read(13) == b"to the server"
            client.finish()
        await until(lambda: house.completions)
    assert house.ends == [("stood", number, 0)], "told before the end was"
    assert house.completions[0][:3] == (number, 13, 0)
    assert len(house.front) == house.front.unknown == 0


async def test_who_speaks_something_else_is_handed_over_with_all_of_it(house: House) -> None:
    client = house.client(b"GET / HTTP/1.1\r\n\r\n")
    await until(lambda: house.visitors)
    visitor = house.visitors[0]
    assert visitor.address == client.socket.getsockname()
    assert (visitor.said, visitor.answered, visitor.errno) == (b"GET / HTTP/1.1\r\n\r\n", False, 0)
    assert not visitor.late
    assert not visitor.socket.getblocking()
    visitor.socket.send(b"HTTP/1.1 400\r\n")
    assert await client.read(14) == b"HTTP/1.1 400\r\n"


async def test_ipv6_alone(house: House) -> None:
    door = FrontListener(house.front, "::1", 0)
    door.start()
    with Peer(socket.create_connection(door.name)) as client:
        client.push(b"GET")
        await until(lambda: house.visitors)
        assert house.visitors[0].address == client.socket.getsockname()[:2]
        assert house.visitors[0].socket.family == socket.AF_INET6
    door.close()


async def test_who_is_taken_is_the_caller_s(house: House) -> None:
    client, number = await house.asks(80)
    visitor = house.front.take(number, CLIENT_ADDRESS)
    assert visitor is not None
    house.visitors.append(visitor)
    assert (visitor.address, visitor.said) == (CLIENT_ADDRESS, GREETING + request(80))
    assert visitor.answered
    assert 0 <= visitor.waited_s < 5
    assert house.front.take(number, CLIENT_ADDRESS) is None
    visitor.socket.send(b"no")
    assert await client.read(4) == b"\x05\x00no"


async def test_who_is_late_is_handed_over_as_that(house: House) -> None:
    house.front.set(names_users=False, handshake_timeout_s=0.02)
    house.client(GREETING)
    await until(lambda: house.visitors)
    visitor = house.visitors[0]
    assert (visitor.late, visitor.errno, visitor.said) == (True, 0, GREETING)
    assert 0.02 <= visitor.waited_s < 5


async def test_what_dialling_meets_is_told(house: House) -> None:
    with listening() as server:
        free = server.getsockname()[1]
    client, number = await house.asks(free)
    house.dial(number, free)
    await until(lambda: house.ends)
    assert house.ends == [("failed", number, errno.ECONNREFUSED)]
    house.unreached[0].socket.send(b"no")
    assert await client.read(4) == b"\x05\x00no"


async def test_a_server_that_does_not_answer_is_given_up_with_no_errno(house: House) -> None:
    with silent() as port:
        _, number = await house.asks(port)
        house.dial(number, port, timeout_s=0.02)
        await until(lambda: house.ends)
    assert house.ends == [("failed", number, 0)]


async def test_a_dial_can_be_killed_once(house: House) -> None:
    with silent() as port:
        _, number = await house.asks(port)
        house.dial(number, port)
        house.relay.kill(number)
        assert house.ends == [("failed", number, errno.ECANCELED)]
        house.relay.kill(number)
        assert not house.front.kill(number)
        assert len(house.ends) == 1


async def test_killed_when_it_stands_it_is_the_relay_that_tells(house: House) -> None:
    with listening() as server:
        port = server.getsockname()[1]
        client, number = await house.asks(port)
        house.dial(number, port)
        with await accepted(server) as outer:
            house.relay.kill(number)
            await until(lambda: house.completions)
            await outer.sees_reset()
        await client.sees_reset()
    assert [(done[0], done.end) for done in house.completions] == [(number, "killed")]
    assert house.ends == [("stood", number, 0)]


async def test_a_client_that_went_away_while_it_was_dialled_is_lost_after_it_stood(house: House) -> None:
    with listening() as server:
        port = server.getsockname()[1]
        client, number = await house.asks(port)
        client.reset()
        house.dial(number, port)
        await until(lambda: len(house.ends) == 2)
        with await accepted(server) as outer:
            await outer.sees_reset()
    assert house.ends[0] == ("stood", number, 0)
    assert house.ends[1][2] in (errno.EPIPE, errno.ECONNRESET)


@pytest.mark.parametrize("what", ["visited", "asked", "failed", "stood"])
async def test_our_own_mistake_costs_one_client(house: House, what: str) -> None:
    house.broken, number = what, 0
    with listening() as server:
        port = server.getsockname()[1]
        refused = 1 if what == "failed" else port
        if what == "visited":
            unlucky = house.client(b"GET")
        else:
            unlucky, number = await house.asks(refused)
            if what != "asked":
                house.dial(number, refused)
        await until(house.errs)
        await unlucky.sees_reset()
        assert [type(error) for error in house.errors] == [ZeroDivisionError]
        if what != "visited":
            assert house.ends[-1] == ("lost", number, errno.EIO), "what was begun for it has its end"
        house.broken = ""
        _, number = await house.asks(port)
        house.dial(number, port)
        await until(lambda: house.heard() and house.ends[-1] == ("stood", number, 0))


async def test_without_room_clients_wait_and_come_in_later(house: House) -> None:
    house.free = lambda: 0
    house.front.hear()
    house.client(b"GET")
    await until(lambda: len(house.shortages) >= 2)
    assert set(house.shortages) == {"no room for another connection"}
    assert not house.visitors
    house.free = lambda: 1
    await until(lambda: house.visitors)


async def test_room_that_has_come_since_the_front_was_told_is_no_shortage(house: House) -> None:
    house.free = lambda: 0
    house.front.hear()
    house.free = lambda: 3
    house.client(b"GET")
    await until(lambda: house.visitors)
    assert house.shortages == []


async def test_however_late_python_counts_no_more_come_in_than_fit(house: House) -> None:
    most = 3
    house.free = lambda: most - len(house.visitors)
    house.front.hear()
    for _ in range(10):
        house.client(b"GET")
    await until(lambda: house.shortages)
    await until(lambda: len(house.shortages) > 1)
    assert len(house.visitors) == most


async def test_without_descriptors_clients_wait_and_come_in_later(house: House) -> None:
    house.client(b"GET")
    await until(lambda: house.visitors)
    waiting = socket.socket()
    house.peers.append(Peer(waiting))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        waiting.connect(house.door.name)
        waiting.send(b"GET")
        await until(lambda: len(house.shortages) >= 2)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert "open files" in house.shortages[0]
    await until(lambda: len(house.visitors) == 2)


async def test_who_is_here_at_the_end_is_reset_and_every_dial_has_its_end(house: House) -> None:
    with silent() as port:
        speaking = house.client(b"\x05")
        asking, _ = await house.asks(port)
        dialled, number = await house.asks(port)
        _, refused = await house.asks(1)
        await until(lambda: len(house.front) == 4)
        house.dial(number, port)
        house.dial(refused, 1)
        house.front._native.take(0)  # both orders are carried out, and nobody has read a letter since
        house.front.close()
        house.front.close()
    assert sorted(house.ends) == [
        ("failed", refused, errno.ECONNREFUSED),
        ("lost", number, errno.ESHUTDOWN),
    ]
    for peer in (speaking, asking, dialled):
        await peer.sees_reset()
    assert not house.front.kill(number)


async def test_nobody_comes_in_before_start_nor_after_close(house: House) -> None:
    door = FrontListener(house.front, "127.0.0.1", 0)
    early = Peer(socket.create_connection(door.name))
    early.socket.setblocking(False)
    house.peers.append(early)
    early.push(b"GET")
    await turns(10)
    assert not house.visitors
    door.start()
    await until(lambda: house.visitors)
    door.close()
    door.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(door.name)


async def test_a_listener_that_never_began_is_closed(house: House) -> None:
    door = FrontListener(house.front, "127.0.0.1", 0)
    door.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(door.name)


async def test_a_port_in_use_is_an_error_of_ours(house: House) -> None:
    with pytest.raises(LinkError, match="in use") as caught:
        FrontListener(house.front, *house.door.name)
    assert caught.value.side is Side.OURS


async def test_a_closed_front_takes_no_listener_and_keeps_no_descriptor(house: House) -> None:
    house.front.close()
    before = open_descriptors()
    door = FrontListener(house.front, "127.0.0.1", 0)
    with pytest.raises(LinkError):
        door.start()
    assert open_descriptors() <= before


async def test_without_descriptors_or_a_relay_there_is_no_front(poller: Poller, house: House) -> None:
    before = open_descriptors()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            Front(poller, house.relay, house, room=lambda: 1, on_shortage=print)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    house.front.close()
    house.relay.close()
    with pytest.raises(OSError, match="shutdown"):
        Front(poller, house.relay, house, room=lambda: 1, on_shortage=print)
    assert open_descriptors() <= before
