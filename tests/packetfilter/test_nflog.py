"""What the kernel tells, read; and nonsense, passed over."""

from __future__ import annotations

import struct
import subprocess
import sys
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.end_to_end.wires import unshare_flags, why_not

from doorward.packetfilter.messages import Flow
from doorward.packetfilter.nflog import flows_in


def told(packet: bytes, prefix: bytes = b"doorward abc123 7\0", kind: int = 0x400) -> bytes:
    body = b"\2\0\0\5"
    for number, value in ((3, b"junk"), (10, prefix), (9, packet)):
        attribute = struct.pack("=HH", len(value) + 4, number) + value
        body += attribute + bytes(-len(attribute) % 4)
    return struct.pack("=IHHII", len(body) + 16, kind, 0, 0, 0) + body


def ipv4(protocol: int = 6, options: int = 0) -> bytes:
    head = bytes([0x45 + options, 0, 0, 60, 0, 0, 0, 0, 64, protocol, 0, 0])
    ends = ip_address("10.1.0.2").packed + ip_address("10.2.0.2").packed
    return head + ends + bytes(4 * options) + struct.pack(">HH", 40_000, 80) + bytes(16)


IPV6 = bytes([0x60, 0, 0, 0, 0, 8, 17, 64]) + ip_address("fd01::2").packed + ip_address("fd02::2").packed
FLOW = Flow("abc123", 7, "tcp", "10.1.0.2", 40_000, "10.2.0.2", 80)


def test_flows_are_read_from_their_first_packet() -> None:
    assert list(flows_in(told(ipv4()) + told(ipv4(options=3)))) == [FLOW, FLOW]
    assert list(flows_in(told(IPV6 + struct.pack(">HH", 5, 53)))) == [
        Flow("abc123", 7, "udp", "fd01::2", 5, "fd02::2", 53)
    ]


@pytest.mark.parametrize(
    "data",
    [
        told(ipv4(), b"other 7\0"),
        told(ipv4(), b"doorward a-b 7\0"),
        told(ipv4(), kind=2),
        told(ipv4(protocol=1)),
        told(ipv4()[:21]),
        told(IPV6),
        told(b""),
        b"",
        bytes(64),
    ],
)
def test_what_tells_of_no_flow_is_passed_over(data: bytes) -> None:
    assert list(flows_in(data)) == []
    assert list(flows_in(told(ipv4()) + data))[:1] == [FLOW]


@given(st.binary(max_size=120), st.integers(0, 200))
def test_nothing_that_is_cut_or_spoilt_raises(noise: bytes, at: int) -> None:
    whole = told(ipv4())
    for data in (noise, whole[:at], whole[:at] + noise, told(noise)):
        assert all(isinstance(flow, Flow) for flow in flows_in(data))


@pytest.mark.skipif(bool(why_not()), reason=why_not())
def test_the_kernel_takes_us_as_a_listener() -> None:
    script = "from doorward.packetfilter.nflog import FlowLog as L\nlog = L(1)\nprint(log.read())\nlog.socket.close()"
    done = subprocess.run(
        ["unshare", unshare_flags(), sys.executable, "-c", script],
        capture_output=True, text=True, timeout=15, check=False,
    )  # fmt: skip
    assert done.stdout == "()\n", done.stderr
