"""What is loaded against what would be: only what the policy says counts. With a kernel: tests/end_to_end."""

from __future__ import annotations

import subprocess

import pytest
from tests.end_to_end.wires import why_not
from tests.packetfilter.tables import WEB, table_of

from doorward.packetfilter import loaded
from doorward.packetfilter.loaded import LoadedUnreadable, loaded_lines, wanted_lines
from doorward.packetfilter.writing import lay_out


def answering(monkeypatch: pytest.MonkeyPatch, *answers: str, status: int = 0) -> None:
    left = list(answers)

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, status, left.pop(0), "Operation not permitted\n")

    monkeypatch.setattr(subprocess, "run", run)


def test_what_comes_and_goes_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (
        'table inet doorward {\n\tcounter up {\n\t\tcomment "c"\n\t\tpackets 7 bytes 9\n\t}\n\n'
        "\tset open4 {\n\t\tflags interval,timeout\n\t\telements = { 10.2.0.2 . tcp . 0.0.0.0/0 . 1 timeout 30s,\n"
        "\t\t\t     10.2.0.2 . tcp . 0.0.0.0/0 . 2 }\n\t}\n\tset clients4 {\n\t\telements = { 10.1.0.0/24 }\n\t}\n}\n"
    )
    answering(monkeypatch, "table inet other\ntable inet doorward\n", text)
    found = "\n".join(loaded_lines())
    assert "packets" not in found
    assert "timeout 30s" not in found
    assert "10.1.0.0/24" in found
    assert "flags interval,timeout" in found


def test_no_table_is_no_lines_and_no_right_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, "table inet other\n")
    assert loaded_lines() == []
    answering(monkeypatch, "", status=1)
    with pytest.raises(LoadedUnreadable, match=r"Operation not permitted.*CAP_NET_ADMIN"):
        loaded_lines()
    monkeypatch.setattr(loaded, "_LIST", ["/nonexistent"])
    monkeypatch.undo()


@pytest.mark.skipif(bool(why_not()), reason=why_not())
def test_a_table_that_is_not_loaded_is_read_as_if_it_were() -> None:
    found = wanted_lines(lay_out(table_of(WEB)))
    assert found[0] == "table inet doorward {"
    assert any('comment "allow: web"' in line for line in found)
