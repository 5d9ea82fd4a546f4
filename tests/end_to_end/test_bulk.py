"""Much data, each way, with equal digests. DOORWARD_E2E_MIB says how much; 1024 is the promise, 256 the habit."""

from __future__ import annotations

import os
import socket
import threading

import pytest
from tests.end_to_end.dialling import Dial, connect, socks5
from tests.end_to_end.running import RunningFirewall
from tests.end_to_end.servers import BulkServer, receive_all, send_blocks

MIB = int(os.environ.get("DOORWARD_E2E_MIB", "256"))
BYTES = MIB * 2**20
WAYS = pytest.mark.parametrize("dial", [socks5, connect])

pytestmark = [pytest.mark.slow, pytest.mark.timeout(20 + MIB / 8), pytest.mark.xdist_group("bulk")]


@WAYS
def test_a_download_arrives_whole(firewall: RunningFirewall, dial: Dial) -> None:
    server = BulkServer(MIB)
    with server.serving() as port, dial(firewall.port, port) as sock:
        sock.shutdown(socket.SHUT_WR)
        received = receive_all(sock)
        assert server.done.wait(10)
        assert received == (server.sent, BYTES)
    [record] = firewall.wait_for_records(1, lambda record: record.port == port)
    assert (record.bytes_received, record.bytes_sent, record.end) == (BYTES, 0, "closed")


@WAYS
def test_an_upload_arrives_whole(firewall: RunningFirewall, dial: Dial) -> None:
    server = BulkServer(0)
    with server.serving() as port, dial(firewall.port, port) as sock:
        sent = send_blocks(sock, MIB)
        assert sock.recv(1) == b""
        assert server.done.wait(10)
        assert server.received == (sent, BYTES)
    [record] = firewall.wait_for_records(1, lambda record: record.port == port)
    assert (record.bytes_received, record.bytes_sent, record.end) == (0, BYTES, "closed")


@WAYS
def test_both_directions_at_once_arrive_whole(firewall: RunningFirewall, dial: Dial) -> None:
    server = BulkServer(MIB)
    sent: list[str] = []
    with server.serving() as port, dial(firewall.port, port) as sock:
        sending = threading.Thread(target=lambda: sent.append(send_blocks(sock, MIB)))
        sending.start()
        received = receive_all(sock)
        sending.join()
        assert server.done.wait(10)
        assert received == (server.sent, BYTES)
        assert server.received == (sent[0], BYTES)
    [record] = firewall.wait_for_records(1, lambda record: record.port == port)
    assert (record.bytes_received, record.bytes_sent, record.end) == (BYTES, BYTES, "closed")
