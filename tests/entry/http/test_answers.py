from __future__ import annotations

import pytest

from doorward.api.errors import ReplyHint
from doorward.engine.outcome import Refusal
from doorward.engine.target import Target
from doorward.entry.http.answers import STATUS, answer
from doorward.wire.http import Request, RequestReader


def a_request(*fields: str) -> Request:
    head = "\r\n".join(["GET http://a.test/ HTTP/1.1", "Host: a.test", *fields, "", ""])
    event = RequestReader().receive(head.encode())[0]
    assert isinstance(event, Request)
    return event


@pytest.mark.parametrize("hint", list(ReplyHint))
def test_every_refusal_has_a_status_a_sentence_and_its_reason(hint: ReplyHint) -> None:
    data = answer(
        Refusal("deny", "a_reason", hint), Target("a.test", None, 80), a_request(), keep_alive=False
    )
    head, _, body = data.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % STATUS[hint])
    assert b"\r\nDoorward-Reason: a_reason\r\n" in head
    assert b"a.test:80" in body
    assert (b"\r\nProxy-Authenticate: Basic" in head) == (hint is ReplyHint.NEEDS_USER)


def test_the_rule_that_decided_is_named() -> None:
    refused = Refusal("deny", "rule_deny", ReplyHint.NOT_ALLOWED, "no games")
    data = answer(refused, Target("a.test", None, 80), a_request(), keep_alive=True)
    assert b"rule: no games" in data
    assert b"Connection: close" not in data


def test_nothing_that_the_world_said_can_split_the_answer() -> None:
    refused = Refusal("deny", "x\r\nSet-Cookie: a=b", ReplyHint.NOT_ALLOWED, "rule\r\n\x1b[31m", "detail\r\n")
    data = answer(refused, Target("a.test", None, 80), a_request(), keep_alive=False)
    assert b"\r\nSet-Cookie" not in data
    assert b"\x1b" not in data
