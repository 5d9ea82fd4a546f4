"""Messages as bytes, and the kernel's answers."""

from __future__ import annotations

import struct
import subprocess
import sys

import pytest
from tests.capture.inside import needs_namespaces

from doorward.capture import netlink
from doorward.capture.netlink import ACK, Message, Netlink, NetlinkRefused, attribute, nested, pack, text, u32


def test_an_attribute_is_padded_and_its_length_is_not() -> None:
    assert attribute(3, b"abcde") == struct.pack("=HH", 9, 3) + b"abcde\0\0\0"
    assert text(1, "lo") == struct.pack("=HH", 7, 1) + b"lo\0\0"
    assert u32(2, 258) == struct.pack("=HH", 8, 2) + b"\0\0\1\2"


def test_nested_attributes_lie_inside_and_are_marked() -> None:
    inner = u32(1, 7)
    assert nested(4, inner, inner) == struct.pack("=HH", 4 + 2 * len(inner), 4 | 0x8000) + inner + inner


def test_a_message_has_its_length_and_asks() -> None:
    packed = pack(Message(16, ACK, b"12345678", "x"), 9)
    assert struct.unpack_from("=IHHII", packed) == (24, 16, ACK | 1, 9, 0)
    assert packed[16:] == b"12345678"


def test_a_refusal_says_what_was_asked_for() -> None:
    # Link 0 is no link: the kernel says so to anybody.
    bad = Message(18, ACK, struct.pack("=BxHiII", 0, 0, 2_000_000_000, 0, 0), "asking for a link")
    with (
        Netlink(netlink.ROUTE) as route,
        pytest.raises(NetlinkRefused, match=r"asking for a link: No such device") as refused,
    ):
        route.ask([bad])
    assert refused.value.number == 19


@pytest.mark.parametrize(
    "answer",
    [b"x", b"\xff" * 16, struct.pack("=IHHII", 8, 2, 0, 1, 0), struct.pack("=IHHII", 400, 2, 0, 1, 0)],
)
def test_answers_of_wrong_lengths_are_errors(answer: bytes) -> None:
    with pytest.raises(OSError, match="netlink message"):
        netlink._answers(answer)


def test_what_is_no_acknowledgement_is_passed_over() -> None:
    other = struct.pack("=IHHII", 16, 3, 0, 1, 0)
    good = struct.pack("=IHHIIi", 20, 2, 0, 5, 0, -13)
    assert netlink._answers(other + good) == [(5, 13)]


@needs_namespaces
def test_without_rights_the_packet_filter_is_refused() -> None:
    code = (
        "from doorward.capture import kernel, rules; from doorward.capture.netlink import *\n"
        "kernel.unshare(kernel.NEW_USER | kernel.NEW_NET); kernel.limit_capabilities(frozenset())\n"
        "try:\n  with Netlink(NETFILTER) as n: n.ask(rules.table())\n"
        "except NetlinkRefused as e: print(e.number)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=10, check=True
    )
    assert done.stdout == "1\n"
