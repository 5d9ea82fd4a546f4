from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest
from tests.record.desks import PATIENCE_S, office
from tests.record.samples import a_record, settings

from doorward.record.model import Record
from doorward.record.packets import ROWS_MAX, Packet, first_number, read_packet, receipt
from doorward.record.remote import RemoteWriter
from doorward.record.store import RecordStore

FIRST = first_number(1)


def own(number: int) -> Record:
    return a_record(FIRST + number, session=FIRST)


class Supervisor:
    """The other end, which answers as a test wants it to."""

    def __init__(self) -> None:
        ours, self.sock = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.settimeout(PATIENCE_S)
        self.writer = RemoteWriter(ours, timeout_s=0.05)

    def packet(self) -> Packet:
        return read_packet(self.sock.recv(1 << 20), FIRST)


def test_a_worker_s_store_is_the_supervisor_s_files(tmp_path: Path) -> None:
    with office(tmp_path) as here:
        store = RecordStore(settings(tmp_path), writer=RemoteWriter(here.worker()))
        store.start()
        for number in range(3 * ROWS_MAX + 1):
            store.append(own(number))
        assert store.close(PATIENCE_S)
        assert here.connections() == [FIRST + number for number in range(3 * ROWS_MAX + 1)]
        assert store.tally.records == here.desk.tally.records == 3 * ROWS_MAX + 1


def test_what_the_supervisor_cannot_write_fails_here_with_its_reason() -> None:
    here = Supervisor()
    answering = threading.Thread(
        target=lambda: here.sock.send(receipt(here.packet().question, "the disk is full"))
    )
    answering.start()
    with pytest.raises(OSError, match="the disk is full"):
        here.writer.write([own(1)])
    answering.join()
    here.writer.close()
    here.sock.close()


def test_what_was_not_confirmed_in_time_is_sent_again_under_its_number() -> None:
    here = Supervisor()
    batch = [own(number) for number in range(ROWS_MAX + 1)]
    with pytest.raises(OSError, match="no answer"):
        here.writer.write(batch)
    first = here.packet()
    here.sock.send(receipt(first.question, None))  # too late: it is an answer to no question any more
    with pytest.raises(OSError, match="no answer"):
        here.writer.write(batch)
    again = here.packet()
    assert (again.number, again.rows) == (first.number, first.rows)
    assert again.question != first.question
    here.sock.settimeout(0.1)
    with pytest.raises(TimeoutError):  # and nothing was sent after it, as if it had been confirmed
        here.sock.recv(1)
    here.writer.close()
    here.sock.close()


def test_a_batch_goes_on_where_it_was_interrupted() -> None:
    here = Supervisor()
    batch = [own(number) for number in range(ROWS_MAX + 1)]
    arrived: list[Packet] = []

    def answer(failures: list[str | None]) -> None:
        for failure in failures:
            arrived.append(here.packet())
            here.sock.send(receipt(arrived[-1].question, failure))

    for failures in ([None, "full"], [None]):
        answering = threading.Thread(target=answer, args=(failures,))
        answering.start()
        try:
            here.writer.write(batch)
        except OSError:
            assert failures[-1] == "full"
        answering.join()
    assert [(packet.number, len(packet.rows)) for packet in arrived] == [(1, ROWS_MAX), (2, 1), (2, 1)]
    here.writer.close()
    here.sock.close()


@pytest.mark.parametrize("said", [b"", b"nonsense"])
def test_a_supervisor_that_is_gone_or_mad_is_a_failure(said: bytes) -> None:
    here = Supervisor()
    if said:
        here.sock.send(said)
    else:
        here.sock.close()
    for call in (here.writer.open, here.writer.upkeep, lambda: here.writer.write([own(1)])):
        with pytest.raises(OSError, match="gone"):
            call()
        if said:
            here.sock.send(said)
    here.writer.rotate()
    here.writer.close()
    here.sock.close()


def test_a_worker_hears_of_a_broken_log_before_it_has_a_record_for_it(tmp_path: Path) -> None:
    with office(tmp_path) as here:
        writer = RemoteWriter(here.worker())
        writer.upkeep()
        here.desk.failure = "gone"
        with pytest.raises(OSError, match="gone"):
            writer.upkeep()
        writer.close()
