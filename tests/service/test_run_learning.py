"""What was used, as a policy and as a test of it."""

from __future__ import annotations

import ast
from ipaddress import ip_address
from pathlib import Path

import pytest
from tests.record.samples import a_record

from doorward.config.loading import check, load, read_bytes
from doorward.policy.model import Action, Inputs, Transport
from doorward.record.model import Record
from doorward.service import run_learning
from doorward.service.run_learning import Learning, allowing


class Log:
    def __init__(self) -> None:
        self.taken: list[Record] = []

    def append(self, record: Record) -> None:
        self.taken.append(record)

    def refuses(self) -> str | None:
        return "full"


def learnt(*records: Record) -> Learning:
    learning = Learning(Log())
    for record in records:
        learning.append(record)
    return learning


def asked(transport: Transport, host: str | None, address: str, port: int) -> Inputs:
    return Inputs(transport, ip_address("127.0.0.1"), host, ip_address(address), port, None, frozenset(), 0)


def test_the_policy_allows_what_was_used_and_nothing_else(tmp_path: Path) -> None:
    learning = learnt(
        a_record(1, host="web.example", port=443),
        a_record(2, host="web.example", port=80),
        a_record(3, host=None, address="2001:db8::7", port=53, transport="udp", operation="destination"),
    )
    path = tmp_path / "learnt.toml"
    path.write_text(learning.policy("npm test"))
    assert check(path) == []
    policy = load(path).policy
    for inputs in (
        asked("tcp", "web.example", "203.0.113.7", 443),
        asked("tcp", "web.example", "203.0.113.8", 80),
        asked("udp", None, "2001:db8::7", 53),
    ):
        assert policy.judge(inputs).action is Action.ALLOW
    for inputs in (
        asked("tcp", "web.example", "203.0.113.7", 22),
        asked("udp", "web.example", "203.0.113.7", 443),
        asked("tcp", None, "203.0.113.7", 443),
        asked("tcp", None, "2001:db8::7", 53),
    ):
        assert policy.judge(inputs).action is Action.DENY


@pytest.mark.parametrize(
    "record",
    [
        a_record(1, action="deny"),
        a_record(1, action="fail"),
        a_record(1, operation="udp"),
        a_record(1, operation="resolve"),
        a_record(1, port=0),
    ],
)
def test_what_was_not_used_is_not_learnt_and_still_on_record(record: Record) -> None:
    learning = learnt(record)
    assert len(learning) == 0
    log = learning._recorder
    assert isinstance(log, Log)
    assert log.taken == [record]
    assert learning.refuses() == "full"


def test_there_is_an_end_to_what_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_learning, "USED_MAX", 3)
    learning = learnt(*(a_record(1, port=port) for port in (1, 2, 3, 1, 4, 5)))
    assert (len(learning), learning.more) == (3, 2)


def test_nothing_that_was_said_gets_out_of_its_quotes(tmp_path: Path) -> None:
    learning = learnt(a_record(1, host='a"]\n[[rule]]\nname = "evil', port=1))
    text = learning.policy('x"\n[[rule]]')
    assert text.count("\n[[rule]]") == 1
    ast.parse(learning.test(tmp_path / 'a".toml'))


def test_the_test_names_its_policy_and_every_destination() -> None:
    used = learnt(
        a_record(1, host=None, address="2001:db8::7", port=53, transport="udp"), a_record(2, port=443)
    )
    text = used.test(Path("some/learnt.toml"))
    assert '"learnt.toml"' in text
    assert '"udp://[2001:db8::7]:53"' in text
    assert '"tcp://api.example.org:443"' in text
    ast.parse(text)


def test_to_learn_is_to_allow_what_no_guard_closes() -> None:
    configuration = read_bytes(b"", Path("doorward.toml")).configuration
    assert configuration is not None
    policy = allowing(configuration).policy
    assert policy.judge(asked("tcp", None, "198.51.100.7", 25)).action is Action.ALLOW
    assert policy.judge(asked("tcp", None, "169.254.169.254", 80)).action is Action.DENY
    assert policy.judge(asked("tcp", None, "127.0.0.1", 80)).action is Action.DENY
