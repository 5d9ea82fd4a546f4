from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
from tests.cli.child import doorward, reply_code, serving
from tests.cli.conftest import Run
from tests.entry.world import HEAD, RULE

from doorward.cli import status
from doorward.service.control import Answer
from doorward.service.status import Counts, Status, WorkerStatus


def test_without_a_firewall_that_is_said_with_status_69(run: Run) -> None:
    result = run("status")
    assert result.exit_code == 69
    assert "no doorward is running" in result.stderr


def test_one_process_tells_of_itself(home: Path) -> None:
    with serving(home) as (child, port):
        assert reply_code(port, 9) == 5
        told = json.loads(doorward("status", "--json", home=home).stdout)
        assert told["listening"] == [f"127.0.0.1:{port}"]
        [worker] = told["workers"]
        assert (worker["worker"], worker["pid"], worker["begun"]) == (0, child.process.pid, 1)
        shown = doorward("status", "--socket", home / "control", home=home)
        assert shown.returncode == 0
        assert "serving" in shown.stdout
        assert str(child.process.pid) in shown.stdout


@pytest.mark.timeout(40)
def test_several_processes_tell_of_themselves_and_the_supervisor_of_all(home: Path) -> None:
    (home / "doorward.toml").write_text(HEAD.replace("[control]", "workers = 2\n[control]") + RULE)
    with serving(home) as (child, port):
        child.wait_for("workers +2")
        assert reply_code(port, 9) == 5
        told = json.loads(doorward("status", "--json", home=home).stdout)
        assert told["pid"] == child.process.pid
        assert [worker["worker"] for worker in told["workers"]] == [1, 2]
        assert sum(worker["begun"] for worker in told["workers"]) == 1
        assert len({told["pid"], *(worker["pid"] for worker in told["workers"])}) == 3


def answered(run: Run, monkeypatch: pytest.MonkeyPatch, answer: Answer, *words: str) -> tuple[int, str, str]:
    monkeypatch.setattr(status, "ask", lambda path, command: answer)
    result = run("status", *words)
    return result.exit_code, result.stdout, result.stderr


COUNTS = Counts(5, 2, 1, 2048, 10 * 2**20)
BUSY = WorkerStatus(1, 71, "serving", 61.0, 0, 12, 3, 400, 7, 1, None, COUNTS)


def whole(*workers: WorkerStatus) -> Answer:
    return Answer(
        True,
        "",
        [],
        Status("1.2", "abc", "/p.toml", 70, 3700.0, "native", ["[::1]:1080"], [], COUNTS, list(workers)),
    )


def test_the_table_says_everything_in_columns(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    down = WorkerStatus(2, 0, "down", restarts=3)
    code, out, err = answered(run, monkeypatch, whole(BUSY, down))
    lines = out.splitlines()
    assert (code, err) == (0, "")
    assert "doorward   1.2, process 70, up 1h01m" in lines
    assert "records    5 allowed, 2 denied, 1 failed" in lines
    assert "bytes      2.0k sent, 10M received" in lines
    assert lines[-2].split() == ["1", "71", "serving", "1m01s", "12", "400", "3", "3", "7", "1", "10M"]
    assert lines[-1].split() == ["2", "-", "down", "(3", "restarts)", "0us", *"-" * 7]
    assert len(lines[-1]) == len(lines[-2]) == len(lines[-3])


def test_a_log_that_cannot_be_written_is_said_and_cannot_steer_the_terminal(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = WorkerStatus(1, 71, "serving", log_failure="no \x1b[2J space")
    code, out, err = answered(run, monkeypatch, whole(broken))
    assert code == 0
    assert "worker 1: no " in err
    assert "\x1b" not in out + err


def test_a_firewall_that_knows_no_status_says_so(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    code, _, err = answered(run, monkeypatch, Answer(False, "unknown command"))
    assert code == 1
    assert "unknown command" in err


def test_everything_is_there_as_json(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    _, out, _ = answered(run, monkeypatch, whole(BUSY), "--json")
    told = json.loads(out)
    assert told["workers"][0]["records_waiting"] == 7
    assert told["counts"]["bytes_received"] == 10 * 2**20


def test_nothing_listens_where_a_dead_firewall_left_its_socket(run: Run, home: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(home / "control"))
    assert run("status").exit_code == 69
