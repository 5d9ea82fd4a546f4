"""The helper's manners: whom it listens to, what it does with nonsense, and that nothing is left of a caller."""

from __future__ import annotations

import errno
import os
import socket
import stat
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from tests.packetfilter.helpers import helping
from tests.packetfilter.tables import HOLE, WEB, RememberingNft, table_of

from doorward.packetfilter.helper import Helper, HelperUnavailable
from doorward.packetfilter.keeper import Keeper
from doorward.packetfilter.messages import (
    LENGTH,
    REQUEST_BYTES_MAX,
    Change,
    Count,
    Counted,
    Done,
    Flow,
    Load,
    Message,
    Noticed,
    Opening,
    Refused,
    Reply,
    packed,
    read_reply,
)

TABLE = table_of(WEB)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "s"


def calling(path: Path) -> socket.socket:
    caller = socket.socket(socket.AF_UNIX)
    caller.settimeout(5)
    caller.connect(str(path))
    return caller


def hear(caller: socket.socket) -> Reply:
    (length,) = LENGTH.unpack(caller.recv(LENGTH.size, socket.MSG_WAITALL))
    return read_reply(caller.recv(length, socket.MSG_WAITALL))


def ask(caller: socket.socket, request: Message) -> Reply:
    caller.sendall(packed(request))
    return hear(caller)


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_requests_are_served_in_order_however_they_are_cut(path: Path) -> None:
    with helping(path) as helped, calling(path) as caller:
        for byte in packed(Load(1, TABLE))[:40]:
            caller.send(bytes([byte]))
        caller.sendall(
            packed(Load(1, TABLE))[40:] + packed(Change(2, (Opening(HOLE, 9.0),))) + packed(Count(3))
        )
        assert [hear(caller) for _ in range(3)] == [Done(1), Done(2), Counted(3, {})]
        assert len(helped.nft.transactions) == 4, "closed what was open, loaded, opened, counted"
        helped.nft.unwanted = ["table"]
        assert ask(caller, Load(4, TABLE)) == Refused(4, "unwanted")
    assert not path.exists()


def test_what_a_caller_had_open_is_closed_when_it_goes(path: Path) -> None:
    with helping(path) as helped:
        with calling(path) as caller:
            ask(caller, Change(1, (Opening(HOLE, 9.0),)))
        until(lambda: "delete" in str(helped.nft.transactions[-1]) and len(helped.nft.transactions) == 3)


@pytest.mark.parametrize(
    "nonsense",
    [
        b"\0\0\0\1x",
        LENGTH.pack(REQUEST_BYTES_MAX + 1),
        b"\xff\xff\xff\xff",
        packed(Done(1)),
        packed(Load(1, TABLE)).replace(b"inner", b"in er"),
    ],
)
def test_who_talks_nonsense_is_dropped_and_others_are_not(path: Path, nonsense: bytes) -> None:
    with helping(path) as helped, calling(path) as good, calling(path) as bad:
        bad.sendall(nonsense)
        assert bad.recv(1) == b""
        assert ask(good, Count(1)) == Counted(1, {})
        assert any("dropped" in line for line in helped.said)


def test_only_one_user_is_listened_to(path: Path) -> None:
    if os.getuid():
        pytest.skip("only root can give the socket to another user")
    with helping(path, user=os.getuid() + 1) as helped:
        assert path.stat().st_uid == os.getuid() + 1
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with calling(path) as caller:
            assert caller.recv(1) == b""
        assert any("not served" in line for line in helped.said)


class Log:
    """What the kernel tells: a flow for each byte."""

    def __init__(self, group: int) -> None:
        if group == 66:
            raise OSError(errno.EPROTONOSUPPORT, "Protocol not supported")
        self.ours, self.socket = socket.socketpair()
        LOGS.append(self)

    def read(self) -> tuple[Flow, ...]:
        return (FLOW,) * len(self.socket.recv(9))


FLOW = Flow("revision", 1, "tcp", "10.1.0.2", 40_000, "10.2.0.2", 80)
LOGS: list[Log] = []


def logging(group: int | None) -> Load:
    capture = msgspec.structs.replace(TABLE.capture, log_group=group)
    return Load(1, msgspec.structs.replace(TABLE, capture=capture))


def test_flows_are_told_to_every_caller_as_long_as_the_table_logs(path: Path) -> None:
    with helping(path) as helped:
        helped.helper._open_log = Log  # type: ignore[assignment]
        with calling(path) as one, calling(path) as other:
            assert ask(one, logging(5)) == ask(other, logging(5)) == Done(1)
            (log,) = LOGS
            log.ours.send(b"x")
            assert hear(one) == hear(other) == Noticed(0, (FLOW,))
            refused = ask(one, logging(66))
            assert isinstance(refused, Refused)
            assert "nfnetlink_log" in refused.reason
            log.ours.send(b"xx")
            assert hear(one) == Noticed(0, (FLOW, FLOW))
            assert ask(one, logging(None)) == Done(1)
            assert log.socket.fileno() == -1
            log.ours.close()


def test_there_is_one_helper_and_a_dead_ones_socket_is_taken_over(path: Path) -> None:
    with helping(path), pytest.raises(HelperUnavailable):
        Helper(Keeper(RememberingNft()), path, os.getuid(), print)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with helping(path), calling(path) as caller:
        assert ask(caller, Count(1)) == Counted(1, {})
    with pytest.raises(HelperUnavailable, match="cannot make the socket"):
        Helper(Keeper(RememberingNft()), path / "no" / "where", os.getuid(), print)
