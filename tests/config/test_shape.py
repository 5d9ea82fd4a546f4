from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from doorward.config.document import Document
from doorward.config.lines import Lines
from doorward.config.problems import Report
from doorward.config.shape import shape


def messages(data: dict[str, Any]) -> list[str]:
    report = Report("p", Lines(""))
    shape(data, report)
    return [str(problem).removeprefix("p:1: ") for problem in report.problems()]


def test_a_right_document_is_taken_as_it_is() -> None:
    assert messages({"networks": {"lan": ["10.0.0.0/8"]}, "limits": {"idle_timeout_s": 60}}) == []


def test_what_is_right_beside_a_mistake_is_kept_for_later_checks() -> None:
    report = Report("p", Lines(""))
    rule = {"name": "one", "action": "allow", "protocols": ["https", 3], "from": ["network:lan"]}
    document = shape({"rule": [rule], "networks": {"lan": ["10.0.0.0/8"]}}, report)
    assert report.failed
    assert document.rule[0].protocols == ["https", ""]
    assert document.rule[0].from_ == ["network:lan"]
    assert document.networks == {"lan": ["10.0.0.0/8"]}


def test_a_password_is_never_quoted() -> None:
    (message,) = messages({"users": {"kim": {"password": 12_345}}})
    assert message == "users.kim.password: expected a text, found a number"


@pytest.mark.parametrize("value", [True, "60", 2**400, -1, 0, float("nan"), float("inf"), [], {}])
def test_a_wrong_limit_is_reported_once(value: object) -> None:
    (message,) = messages({"limits": {"idle_timeout_s": value}})
    assert message.startswith("limits.idle_timeout_s: expected a number above 0 to 86400, found ")


def test_filter_settings_may_be_anything() -> None:
    filters = [{"name": "a", "use": "b", "settings": {"x": [1, {"y": None}], "z": 2**80}}]
    assert messages({"filter": filters}) == []


KEYS = st.sampled_from(
    ["listen", "proxy", "rule", "name", "action", "from", "limits", "idle_timeout_s", "users", "x", ""]
)
VALUES = st.recursive(
    st.one_of(st.integers(), st.booleans(), st.floats(), st.text(max_size=3), st.dates(), st.just("allow")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(KEYS, VALUES, max_size=4))
def test_the_walk_and_msgspec_agree_on_what_is_wrong(data: dict[str, Any]) -> None:
    try:
        msgspec.convert(data, Document)
        right = True
    except msgspec.ValidationError:
        right = False
    assert (messages(data) == []) == right
