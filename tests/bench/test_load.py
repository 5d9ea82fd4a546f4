"""The load generator: it speaks each way of asking, checks what comes back, and ends."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Callable

import pytest
from bench.load import SOURCE_ADDRESSES, Generator, LoadError, Mode, Target, Via, build
from bench.running import free_port
from tests.bench.plain_proxy import asked_by_connect, asked_by_socks, forwarded, plain_proxy

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler (cc)")

RUN_S = 0.1


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Generator:
    return Generator(build(tmp_path_factory.mktemp("load")))


@pytest.mark.parametrize("mode", ["connections", "messages", "download", "upload", "datagrams"])
def test_every_load_goes_directly(generator: Generator, mode: Mode) -> None:
    window = generator.run(Target("direct"), mode, 4, RUN_S, lambda: 0.0)
    assert (window.operations > 0, window.errors, window.first_error) == (True, 0, "")
    assert window.seconds == pytest.approx(0.8 * RUN_S, rel=0.5)


@pytest.mark.parametrize(
    ("via", "handshake"),
    [("forward", forwarded), ("socks5", asked_by_socks), ("connect", asked_by_connect)],
)
def test_a_proxy_is_asked_in_its_own_way(
    generator: Generator, via: Via, handshake: Callable[[socket.socket, int], int]
) -> None:
    server_port = free_port()
    with plain_proxy(handshake, server_port) as proxy:
        target = Target(via, proxy.port, server_port if via == "forward" else 0)
        window = generator.run(target, "messages", 20, 3 * RUN_S, lambda: 0.0)
    assert (window.operations > 0, window.errors, window.first_error) == (True, 0, "")
    assert proxy.clients == {f"127.0.0.{number}" for number in range(2, 2 + SOURCE_ADDRESSES)}


def test_the_server_comes_back_to_its_port_for_the_next_run(generator: Generator) -> None:
    """Though it was ended with connections open, which linger at that port."""
    server_port = free_port()
    with plain_proxy(forwarded, server_port) as proxy:
        target = Target("forward", proxy.port, server_port)
        for _ in range(5):
            with generator.hold_idle(target, 20, 5.0):
                pass
            assert generator.run(target, "messages", 20, RUN_S / 2, lambda: 0.0).operations > 0


def test_the_meter_is_read_at_both_ends_of_the_window(generator: Generator) -> None:
    told = iter([1.0, 3.5])
    assert generator.run(Target("direct"), "messages", 1, RUN_S, lambda: next(told)).proxy_cpu_s == 2.5


def test_a_proxy_that_refuses_is_an_error_that_says_why(generator: Generator) -> None:
    def refuses(sock: socket.socket, _server_port: int) -> int:
        sock.sendall(b"\x05\xff")
        raise AssertionError("refused")

    with plain_proxy(refuses) as proxy:
        with pytest.raises(LoadError, match="nothing came through: no authentication refused"):
            generator.run(Target("socks5", proxy.port), "connections", 1, RUN_S, lambda: 0.0)


def test_idle_tunnels_stand_while_the_caller_looks(generator: Generator) -> None:
    with plain_proxy(asked_by_socks) as proxy:
        with generator.hold_idle(Target("socks5", proxy.port), 5, 5.0):
            assert len(proxy.clients) == 5


def test_tunnels_that_do_not_stand_are_counted(generator: Generator) -> None:
    with pytest.raises(LoadError, match="only 0 of 2 tunnels stand"):
        with generator.hold_idle(Target("socks5", free_port()), 2, 0.1):
            pass
