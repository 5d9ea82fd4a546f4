from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doorward.config.document import ControlTable, Document, ListenTable, LogTable
from doorward.config.lines import Lines
from doorward.config.model import ListenAddress
from doorward.config.problems import Report
from doorward.config.settings import parse_listen, read_control_path, read_listen, read_log, read_workers


@given(st.ip_addresses(), st.integers(0, 65_535))
def test_every_address_with_port_can_be_listened_on(address: object, port: int) -> None:
    text = f"[{address}]:{port}" if ":" in str(address) else f"{address}:{port}"
    assert parse_listen(text) == ListenAddress(str(address), port)


@given(st.text(max_size=30))
def test_any_other_text_is_refused_with_a_sentence(text: str) -> None:
    try:
        parse_listen(text)
    except ValueError as refusal:
        sentence = str(refusal)
    else:
        return
    assert len(sentence.split()) > 3


def test_port_zero_may_stand_twice_since_the_kernel_chooses() -> None:
    report = Report("p", Lines(""))
    read_listen(Document(listen=ListenTable(proxy=["127.0.0.1:0", "127.0.0.1:0"])), report)
    assert report.problems() == []


def test_a_small_log_still_has_several_files(tmp_path: Path) -> None:
    log = read_log(Document(log=LogTable(size_max_mb=4)), tmp_path, Report("p", Lines("")))
    assert (log.total_bytes_max, log.file_bytes_max) == (4 * 2**20, 2**20)
    assert log.path == tmp_path / "var/doorward.db"


@pytest.mark.parametrize("path", ["a\0b", "x" * 200, ".", "\N{GREEK SMALL LETTER ALPHA}" * 60])
def test_a_control_socket_that_could_not_be_made_is_refused(tmp_path: Path, path: str) -> None:
    report = Report("p", Lines(""))
    read_control_path(Document(control=ControlTable(path=path)), tmp_path, report)
    assert report.failed


@pytest.mark.parametrize(("wanted", "read"), [(1, 1), (64, 64), ("auto", None)])
def test_one_process_serves_clients_or_several_or_one_for_each_core(wanted: Any, read: int | None) -> None:
    report = Report("p", Lines(""))
    assert read_workers(Document(listen=ListenTable(workers=wanted)), report) == read
    assert not report.failed
    assert read_workers(Document(), report) == 1


@pytest.mark.parametrize("wanted", [0, 65, -1, 1.0, True, "", "Auto", "x" * 1000, [], {}, None])
def test_any_other_number_of_processes_is_refused_with_its_line(wanted: Any) -> None:
    report = Report("p", Lines("[listen]\n\nworkers = 0\n"))
    read_workers(Document(listen=ListenTable(workers=wanted)), report)
    [problem] = report.problems()
    assert (problem.line, problem.severity) == (3, "error")
    assert len(problem.message) < 250


def test_a_number_too_long_to_be_written_out_is_refused_without_it() -> None:
    report = Report("p", Lines(""))
    read_workers(Document(listen=ListenTable(workers=1 << 100_000)), report)
    assert "something else" in report.problems()[0].message
