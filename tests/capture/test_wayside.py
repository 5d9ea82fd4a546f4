"""Sockets for a gateway's traffic, and whether it will arrive. What needs another namespace is asked of one."""

from __future__ import annotations

import errno
import os
import socket
import sys
from pathlib import Path

import pytest
from tests.end_to_end.wires import Wires, wires
from tests.end_to_end.wires import why_not as why_no_wires

from doorward.capture import wayside
from doorward.capture.sockets import IP_RECVORIGDSTADDR, Place
from doorward.capture.wayside import bound, why_no_right, why_nothing_arrives

MARK = 0x0D000001
ASK = f"from doorward.capture.wayside import *; print(why_nothing_arrives({MARK}, (4, 6)))"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def test_a_stream_socket_listens_and_nobody_else_does() -> None:
    place = Place("tcp", "127.0.0.1", free_port())
    with bound(place):
        socket.create_connection((place.host, place.port)).close()
        with pytest.raises(OSError, match="in use"):
            bound(place)


def test_a_datagram_socket_tells_where_datagrams_were_going_and_is_nobody_elses() -> None:
    place = Place("udp", "0.0.0.0", free_port())
    with bound(place) as sock, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.sendto(b"x", ("127.0.0.9", place.port))
        data, ((level, kind, told),), *_ = sock.recvmsg(10, 100)
        assert (data, level, kind) == (b"x", socket.IPPROTO_IP, IP_RECVORIGDSTADDR)
        assert told[4:8] == bytes((127, 0, 0, 9))
    with bound(place), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with pytest.raises(OSError, match="in use"):
            other.bind((place.host, place.port))


def test_both_families_have_the_same_port() -> None:
    port = free_port()
    with bound(Place("udp", "0.0.0.0", port)), bound(Place("udp", "::", port)):
        pass


def run(made: Wires) -> str:
    return made.run("gateway", sys.executable, "-c", ASK).stdout.strip()


@pytest.mark.skipif(bool(why_no_wires()), reason=why_no_wires())
def test_what_is_missing_is_said_as_the_command_that_adds_it() -> None:
    with wires() as made:
        for family, ip in (("-4", "ip"), ("-6", "ip -6")):
            says = f"{ip} rule add fwmark {MARK:#x} lookup 100"
            assert says in run(made)
            made.ip("gateway", family, "rule", "add", "fwmark", hex(MARK), "lookup", "100")
            assert f"{ip} route add local default dev lo table 100" in run(made)
            made.ip("gateway", family, "route", "add", "local", "default", "dev", "lo", "table", "100")
        assert not run(made)


def test_a_mark_that_answers_inherit_is_an_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setting = tmp_path / "tcp_fwmark_accept"
    monkeypatch.setattr(wayside, "_MARK_INHERITED", setting)
    assert why_nothing_arrives(MARK, ()) == ""
    setting.write_text("0\n")
    assert why_nothing_arrives(MARK, ()) == ""
    setting.write_text("1\n")
    assert "sysctl net.ipv4.tcp_fwmark_accept=0" in why_nothing_arrives(MARK, ())


def test_a_missing_right_is_told_with_the_way_to_get_it() -> None:
    assert "AmbientCapabilities=CAP_NET_RAW" in why_no_right(OSError(errno.EPERM, "no"))
    assert os.strerror(errno.ENOPROTOOPT) in why_no_right(OSError(errno.ENOPROTOOPT, "no"))
