from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import pytest
from msgspec.structs import fields
from tests.cli.child import COMMAND, PATIENCE_S, doorward, environment, reply_code, running, serving
from tests.cli.conftest import Run
from tests.record.samples import a_record

from doorward.config.model import LogSettings
from doorward.record.model import Record
from doorward.record.store import RecordStore

EVIL_FIELDS = (
    *("host", "user", "rule", "reason", "detail", "entry", "protocol", "end"),
    *("operation", "via", "filters", "process"),
)
EVIL = "a\x1b[2J\x07\u202e\nforged"


@pytest.fixture
def records(home: Path) -> list[Record]:
    """Ten records in the store, in this order."""
    kept = [
        a_record(n, action="deny" if n % 2 else "allow", host=f"h{n}.example", port=n, bytes_sent=n * 1000)
        for n in range(1, 11)
    ]
    store = RecordStore(LogSettings(home / "log.db"))
    store.start()
    for record in kept:
        store.append(record)
    assert store.close()
    return kept


def ports(run: Run, *words: str) -> list[int]:
    result = run("log", "--json", *words)
    assert result.exit_code == 0, result.output
    return [json.loads(line)["port"] for line in result.stdout.splitlines()]


@pytest.mark.usefixtures("records")
def test_records_come_oldest_first_and_the_newest_of_them(run: Run) -> None:
    assert ports(run) == list(range(1, 11))
    assert ports(run, "--limit", "3") == [8, 9, 10]
    assert ports(run, "-n", "0") == list(range(1, 11))


@pytest.mark.usefixtures("records")
@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("action=deny", [1, 3, 5, 7, 9]),
        ("host=h3.example", [3]),
        ("host=*.example", list(range(1, 11))),
        ("port=4", [4]),
        ("bytes_sent>8k", [9, 10]),
        ("client=192.168.0.0/16", list(range(1, 11))),
        ("user=nobody", []),
        ("since=2000-01-01", list(range(1, 11))),
        ("until=2000-01-01", []),
    ],
)
def test_conditions_choose(run: Run, condition: str, expected: list[int]) -> None:
    assert ports(run, condition) == expected


@pytest.mark.usefixtures("records")
def test_several_conditions_must_all_hold(run: Run) -> None:
    assert ports(run, "action=deny", "port>4", "port<9") == [5, 7]


@pytest.fixture
def family(home: Path) -> None:
    """A control connection 3, what it listened with, who came there, and another; in the order of their ends."""
    store = RecordStore(LogSettings(home / "log.db"))
    store.start()
    for record in (
        a_record(5, host=None, port=20, operation="accept", parent=4),
        a_record(4, host=None, address=None, port=4711, operation="bind", parent=3, action="deny"),
        a_record(3, port=21, via="corp"),
        a_record(6, port=80),
    ):
        store.append(record)
    assert store.close()


@pytest.mark.usefixtures("family")
def test_a_connection_is_shown_with_what_came_of_it(run: Run) -> None:
    assert ports(run, "--connection", "3") == [20, 4711, 21]
    assert ports(run, "--connection", "3", "-n", "1") == [21]
    assert ports(run, "--connection", "3", "action=deny") == [4711]
    assert ports(run, "--connection", "6") == [80]
    assert ports(run, "--connection", "7") == []
    assert ports(run, "--connection", "9" * 40) == []
    assert ports(run, "connection=3") == [21]


@pytest.mark.usefixtures("family")
@pytest.mark.parametrize("number", ["0", "-1", "x"])
def test_a_number_that_no_connection_has_is_status_2(run: Run, number: str) -> None:
    assert run("log", "--connection", number).exit_code == 2


@pytest.mark.usefixtures("family")
def test_a_line_tells_what_was_listened_for_and_who_came(run: Run) -> None:
    accept, bind, connect, _ = run("log").stdout.splitlines()
    assert " accept from 203.0.113.7:20 " in accept
    assert " bind port 4711 " in bind
    assert " → api.example.org:21 via corp " in connect


@pytest.mark.usefixtures("family")
def test_the_new_fields_are_conditions_and_stand_in_every_full_form(run: Run) -> None:
    assert ports(run, "operation=accept") == [20]
    assert ports(run, "parent=3") == [4711]
    assert ports(run, "via=corp") == [21]
    (line,) = run("log", "--json", "port=20").stdout.splitlines()
    assert [json.loads(line)[name] for name in ("operation", "parent", "via")] == ["accept", 4, None]
    wide = [line.split() for line in run("log", "--wide", "port=20").stdout.splitlines()]
    assert ["operation", "accept"] in wide
    assert ["parent", "4"] in wide
    assert ["via", "-"] in wide


def test_without_a_store_a_connection_has_no_family_and_that_is_said(run: Run) -> None:
    result = run("log", "--connection", "3")
    assert result.exit_code == 1
    assert "log.db" in result.stderr


@pytest.mark.usefixtures("records")
@pytest.mark.parametrize("condition", ["nonsense", "colour=red", "action=perhaps", "port>x", "since=soon"])
def test_a_condition_that_means_nothing_is_status_2(run: Run, condition: str) -> None:
    result = run("log", condition)
    assert result.exit_code == 2
    assert result.stderr.startswith("doorward: ")


def test_without_a_store_that_is_said(run: Run, home: Path) -> None:
    result = run("log")
    assert result.exit_code == 1
    assert "log.db" in result.stderr
    assert list(home.iterdir()) == [home / "doorward.toml"]


@pytest.mark.usefixtures("records")
def test_another_store_needs_no_policy(run: Run, home: Path) -> None:
    (home / "doorward.toml").unlink()
    assert ports(run, "--file", str(home / "log.db"), "port=4") == [4]


@pytest.mark.parametrize("form", [[], ["--wide"], ["--json"]])
def test_nothing_on_record_can_steer_a_terminal_or_forge_a_line(
    run: Run, home: Path, form: list[str]
) -> None:
    store = RecordStore(LogSettings(home / "log.db"))
    store.start()
    evil = dict.fromkeys(EVIL_FIELDS, EVIL)
    store.append(a_record(1, **evil))
    assert store.close()
    output = run("log", *form).output
    assert not {"\x1b", "\x07", "\u202e"} & set(output)
    assert output.count("\n") == (1 if form != ["--wide"] else len(fields(Record)) + 1)
    assert "\nforged" not in output


def test_the_same_holds_for_a_condition(run: Run, home: Path) -> None:
    assert home.exists()
    output = run("log", f"colour={EVIL}", f"{EVIL}").output
    assert not {"\x1b", "\x07", "\u202e"} & set(output)


@pytest.mark.usefixtures("records")
def test_a_reader_that_has_seen_enough_is_no_error(home: Path) -> None:
    with subprocess.Popen(
        [*COMMAND, "log", "--wide", "-n", "0"], cwd=home, env=environment(), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(PATIENCE_S) in (0, 1)


def test_following_shows_new_records_as_they_come_and_ends_at_an_interrupt(home: Path) -> None:
    with serving(home) as (_, port):
        with running("log", "--follow", "--json", home=home) as log:
            for number in (1, 2):
                assert reply_code(port, 9) == 5
                match = log.wait_for(f'.*"connection":{number},.*')
                assert json.loads(match[0])["reason"] == "connection_refused"
            log.process.send_signal(signal.SIGINT)
            assert log.end() == 0
            assert log.errors == []


def test_a_running_firewall_s_log_is_read_by_a_command_beside_it(home: Path) -> None:
    with serving(home) as (child, port):
        reply_code(port, 9)
        child.process.send_signal(signal.SIGTERM)
        assert child.end() == 0
    shown = doorward("log", "action=fail", home=home)
    assert (shown.returncode, shown.stdout.count("connection_refused")) == (0, 1)
