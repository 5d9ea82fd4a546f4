from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import msgspec
import pytest

from doorward.config.model import Configuration
from doorward.config.problems import ConfigurationRefused
from doorward.service.listeners import CannotListen
from doorward.service.operational_log import make_logger
from doorward.service.reloading import (
    PROBLEMS_TOLD_MAX,
    giving_way,
    policy_of,
    read_policy,
    refused,
    reloaded,
)

pytestmark = pytest.mark.anyio

RULE = '[[rule]]\nname = "a"\naction = "deny"\nprotocols = ["any"]\n'


def in_force(text: str = RULE) -> Configuration:
    return policy_of(text.encode(), Path("/nowhere/doorward.toml"))


def told(out: io.StringIO) -> list[str]:
    return [json.loads(line)["event"] for line in out.getvalue().splitlines()]


async def test_the_text_of_a_policy_is_what_its_configuration_was_read_from(tmp_path: Path) -> None:
    path = tmp_path / "doorward.toml"
    path.write_text(RULE)
    policy = await giving_way(read_policy, path)
    assert policy.text == RULE.encode()
    assert policy_of(policy.text, path).revision == policy.configuration.revision


async def test_a_policy_with_a_mistake_is_none(tmp_path: Path) -> None:
    usual = sys.getswitchinterval()
    for text in ("nonsense", RULE + RULE):
        (tmp_path / "doorward.toml").write_text(text)
        with pytest.raises(ConfigurationRefused):
            await giving_way(read_policy, tmp_path / "doorward.toml")
    assert sys.getswitchinterval() == usual


def test_every_problem_is_answered_and_the_log_has_the_first_of_them() -> None:
    out = io.StringIO()
    rules = "".join(f'[[rule]]\nname = "{n}"\naction = "alow"\nprotocols = ["any"]\n' for n in range(50))
    with pytest.raises(ConfigurationRefused) as failure:
        in_force(rules)
    answer = refused(make_logger(out), in_force(), failure.value)
    assert not answer.ok
    assert len(answer.problems) == 50
    assert told(out) == ["a problem in the policy file"] * PROBLEMS_TOLD_MAX + ["reload refused"]


def test_another_obstacle_is_told_once() -> None:
    out = io.StringIO()
    answer = refused(make_logger(out), in_force(), CannotListen("cannot listen there"))
    assert answer.message == "cannot listen there; the old policy stays in force"
    assert told(out) == ["reload refused"]


@pytest.mark.parametrize(
    ("changes", "hint"),
    [
        ({}, []),
        ({"workers": 4}, ["changes of workers take effect at the next start"]),
        (
            {"workers": None, "control_path": Path("/x")},
            ["changes of [control] and workers take effect at the next start"],
        ),
    ],
)
def test_what_has_to_wait_for_the_next_start_is_said(changes: dict[str, object], hint: list[str]) -> None:
    old = in_force()
    answer = reloaded(make_logger(io.StringIO()), old, msgspec.structs.replace(old, **changes), 0)
    assert answer.ok
    assert answer.problems == hint
