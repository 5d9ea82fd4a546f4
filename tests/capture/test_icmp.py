"""The message that a refused program's socket understands."""

from __future__ import annotations

import struct
from ipaddress import ip_address

from doorward.capture.icmp import _checksum, unreachable


def test_over_ipv4_it_quotes_the_datagram_and_sums_up_to_nothing() -> None:
    message = unreachable((ip_address("192.0.0.8"), 4000), (ip_address("198.51.100.7"), 53))
    assert message[:2] == b"\x03\x03"
    assert message[8:10] == b"\x45\x00"
    assert struct.unpack(">H", message[10:12]) == (28,)
    assert message[20:28] == ip_address("192.0.0.8").packed + ip_address("198.51.100.7").packed
    assert struct.unpack(">HHHH", message[28:]) == (4000, 53, 8, 0)
    assert _checksum(message) == 0


def test_over_ipv6_it_quotes_the_datagram_and_leaves_the_sum_to_the_kernel() -> None:
    message = unreachable((ip_address("fd00::1"), 4000), (ip_address("2001:db8::7"), 53))
    assert message[:8] == b"\x01\x04\0\0\0\0\0\0"
    assert struct.unpack(">IHBB", message[8:16]) == (6 << 28, 8, 17, 64)
    assert message[16:48] == ip_address("fd00::1").packed + ip_address("2001:db8::7").packed
    assert struct.unpack(">HHHH", message[48:]) == (4000, 53, 8, 0)


def test_a_sum_that_overflows_is_carried() -> None:
    assert _checksum(b"\xff\xff" * 3) == 0
    assert _checksum(b"\x80\x00\x80\x00") == 0xFFFE
