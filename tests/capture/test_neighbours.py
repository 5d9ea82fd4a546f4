"""One machine, whatever addresses it has."""

from __future__ import annotations

import sys

import pytest
from tests.end_to_end.wires import CLIENT, GATEWAY, OUTSIDE, SERVER, wires
from tests.end_to_end.wires import why_not as why_no_wires

from doorward.capture.neighbours import machine_of

REACH = """
import socket, sys
with socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM) as sock:
    sock.settimeout(5)
    sock.bind((sys.argv[1], 0))
    sock.connect((sys.argv[2], 9))
    sock.send(b"is anybody there?")
    try:
        sock.recv(1)
    except ConnectionRefusedError:
        pass
"""
ASK = "import sys; from doorward.capture.neighbours import *; print(machine_of(sys.argv[1], sys.argv[2:]))"


@pytest.mark.skipif(bool(why_no_wires()), reason=why_no_wires())
def test_addresses_of_one_machine_have_one_answer() -> None:
    with wires() as made:
        made.run("client", sys.executable, "-c", REACH, CLIENT[4], GATEWAY[4])
        made.run("client", sys.executable, "-c", REACH, CLIENT[6], GATEWAY[6])
        made.run("server", sys.executable, "-c", REACH, SERVER[4], OUTSIDE[4])

        def ask(address: str, *interfaces: str) -> str:
            return made.run("gateway", sys.executable, "-c", ASK, address, *interfaces).stdout.strip()

        first = ask(CLIENT[4], "absent0", "inner")
        assert first.endswith(" on inner")
        assert ask(CLIENT[6], "inner") == first
        assert ask(SERVER[4], "inner") == "None"
        assert ask(SERVER[4], "inner", "outer").endswith(" on outer")


def test_nobody_is_known_on_a_wire_that_is_not_there() -> None:
    assert machine_of("192.0.2.1", ()) is None
    assert machine_of("fe80::1%lo", ("absent0",)) is None
    assert machine_of("192.0.2.1", ("lo",)) is None
