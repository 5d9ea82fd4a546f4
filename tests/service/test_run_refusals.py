"""What is told of refusals: counted, capped, escaped, with rules that a policy file takes as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.record.samples import a_record as record

from doorward.config.loading import check, load
from doorward.policy.model import Action, Inputs
from doorward.record.model import Record
from doorward.service import run_refusals
from doorward.service.run_refusals import Refusals


class Log:
    """Takes everything."""

    def __init__(self) -> None:
        self.taken: list[Record] = []

    def append(self, record: Record) -> None:
        self.taken.append(record)

    def refuses(self) -> str | None:
        return None


def refused(**fields: Any) -> Record:
    given = {
        "action": "deny",
        "reason": "default_deny",
        "rule": None,
        "host": None,
        "filters": None,
        **fields,
    }
    return record(1, **given)


@pytest.fixture
def refusals() -> Refusals:
    return Refusals(Log())


def told(refusals: Refusals) -> str:
    return "\n".join(refusals.told())


def test_everything_goes_to_the_log_and_what_was_allowed_is_not_told(refusals: Refusals) -> None:
    refusals.append(record(1, action="allow"))
    refusals.append(refused(address="198.51.100.7", port=80))
    log = refusals._recorder
    assert isinstance(log, Log)
    assert len(log.taken) == 2
    assert len(refusals.counts) == 1
    assert refusals.refuses() is None


def test_nothing_refused_is_nothing_told(refusals: Refusals) -> None:
    assert told(refusals) == ""


def test_the_same_again_is_counted_and_the_most_frequent_comes_first(refusals: Refusals) -> None:
    refusals.append(refused(address="198.51.100.7", port=80))
    for _ in range(3):
        refusals.append(refused(host="web.example", port=443, rule="no web", reason="rule_deny"))
    lines = list(refusals.told())
    assert lines[0] == "refused    3x  tcp web.example:443  rule_deny  rule: no web"
    assert lines[1] == "refused    1x  tcp 198.51.100.7:80  default_deny  rule: none"


def test_a_name_that_nobody_knows_is_told_apart_from_one_that_is_refused(refusals: Refusals) -> None:
    refusals.append(
        refused(action="fail", reason="name_not_found", host="web.example", port=53, operation="resolve")
    )
    assert told(refusals) == "failed     1x  name web.example  could not be looked up (name_not_found)"


@pytest.mark.parametrize(
    ("fields", "host", "transport", "port"),
    [
        ({"host": "web.example", "port": 443}, "web.example", "tcp", 443),
        ({"address": "198.51.100.7", "port": 5000, "transport": "udp"}, "198.51.100.7", "udp", 5000),
        ({"address": "2001:db8::7", "port": 80}, "2001:db8::7", "tcp", 80),
        (
            {"address": "192.168.7.7", "port": 80, "reason": "rule_deny", "rule": "x"},
            "192.168.7.7",
            "tcp",
            80,
        ),
        ({"host": "web.example", "port": 53, "operation": "resolve"}, "web.example", "tcp", 443),
    ],
)
def test_the_rule_that_is_told_passes_the_check_and_allows_it(
    refusals: Refusals, tmp_path: Path, fields: dict[str, Any], host: str, transport: Any, port: int
) -> None:
    refusals.append(refused(**fields))
    text = told(refusals)
    path = tmp_path / "doorward.toml"
    path.write_text(text[text.index("[[rule]]") :] + "\n")
    assert [str(problem) for problem in check(path) if "error" in str(problem)] == []
    policy = load(path).policy
    from ipaddress import ip_address

    is_name = host == "web.example"
    address = ip_address("203.0.113.9" if is_name else host)
    asked = Inputs(
        transport, ip_address("127.0.0.1"), host if is_name else None, address, port, None, frozenset(), 0
    )
    assert policy.judge(asked).action is Action.ALLOW


@pytest.mark.parametrize(
    "fields",
    [
        {"reason": "denied_by_filter", "filters": '[["x","denied",""]]'},
        {"reason": "log_unavailable", "action": "fail"},
        {"reason": "capture_address"},
        {"action": "fail", "reason": "connection_refused"},
    ],
)
def test_where_no_rule_would_help_none_is_told(refusals: Refusals, fields: dict[str, Any]) -> None:
    refusals.append(refused(host="web.example", port=443, **fields))
    assert "[[rule]]" not in told(refusals)
    assert "web.example:443" in told(refusals)


def test_what_the_program_has_said_is_escaped(refusals: Refusals) -> None:
    refusals.append(refused(host='a"\n[[rule]]\x1b[2J.example', port=443))
    text = told(refusals)
    assert "\x1b" not in text
    assert text.count("\n[[rule]]\n") == 1


def test_a_program_that_scans_fills_no_memory(refusals: Refusals, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_refusals, "REFUSALS_MAX", 30)
    for port in range(1, 101):
        refusals.append(refused(address="198.51.100.7", port=port))
    assert (len(refusals.counts), refusals.more) == (30, 70)
    assert "and 80 more" in told(refusals)
    data = refusals.as_data()
    assert (len(data["refused"]), data["more"]) == (30, 70)


def test_as_data_it_has_everything(refusals: Refusals) -> None:
    refusals.append(refused(host="web.example", port=443))
    (one,) = refusals.as_data()["refused"]
    assert one["host"] == "web.example"
    assert one["count"] == 1
    assert one["allowing"].startswith("[[rule]]")
