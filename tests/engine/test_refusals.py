"""A refusal comes back to who asked as the error that it was."""

from __future__ import annotations

import pytest

from doorward.api import AccessDenied, AddressInUse, DoorwardError, OutOfResources, ReplyHint
from doorward.engine.outcome import Refusal
from doorward.engine.refusals import error_of, keeping

pytestmark = pytest.mark.anyio


async def test_what_was_met_is_what_is_raised() -> None:
    met: list[DoorwardError] = []
    error = AddressInUse("taken")

    async def opening() -> None:
        raise error

    with pytest.raises(AddressInUse):
        await keeping(opening(), met)
    assert error_of(Refusal("fail", "address_in_use", ReplyHint.FAILED), met) is error


def test_what_policy_or_a_filter_refused_is_access_denied_with_its_reason() -> None:
    refused = error_of(Refusal("deny", "rule_deny", ReplyHint.NOT_ALLOWED, "r", "why"), [])
    assert isinstance(refused, AccessDenied)
    assert (refused.reason, refused.detail, refused.hint) == ("rule_deny", "why", ReplyHint.NOT_ALLOWED)


def test_a_log_that_cannot_be_written_is_a_shortage() -> None:
    refused = error_of(Refusal("fail", "log_unavailable", ReplyHint.BUSY, None, "disk full"), [])
    assert isinstance(refused, OutOfResources)
    assert refused.detail == "disk full"
