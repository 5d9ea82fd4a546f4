"""Which reply belongs to which command."""

from __future__ import annotations

import pytest

from doorward.filters.ftp.dialogue import PENDING_MAX, Dialogue, UnaskedReply
from doorward.filters.ftp.words import refusal
from doorward.wire.ftp import Reply

OURS = refusal(550, "ftp_read_only")


def reply(code: int) -> Reply:
    return Reply(code, (b"",))


def greeted() -> Dialogue:
    dialogue = Dialogue()
    dialogue.replied(reply(220))
    return dialogue


def verb_of(dialogue: Dialogue, code: int) -> str | None:
    pending, _ = dialogue.replied(reply(code))
    return None if pending is None else pending.verb


def test_the_greeting_comes_first_and_may_be_announced() -> None:
    dialogue = Dialogue()
    known = [dialogue.greeted]
    for code in (120, 220):
        dialogue.replied(reply(code))
        known.append(dialogue.greeted)
    assert known == [False, False, True]
    assert dialogue.replied(reply(421)) == (None, [])


def test_replies_go_to_commands_in_their_order() -> None:
    dialogue = greeted()
    for verb in ("USER", "PASV", "RETR"):
        dialogue.asked(verb)
    seen = [(verb_of(dialogue, code), dialogue.transferring) for code in (331, 227, 150, 226)]
    assert seen == [("USER", True), ("PASV", True), ("RETR", True), ("RETR", False)]
    assert verb_of(dialogue, 421) is None


def test_our_own_answer_waits_for_its_turn() -> None:
    dialogue = greeted()
    assert dialogue.answer(OURS) == [OURS]
    dialogue.asked("NOOP")
    assert dialogue.answer(OURS) == []
    assert dialogue.answer(OURS) == []
    dialogue.asked("NOOP")
    assert dialogue.due() == []
    dialogue.replied(reply(200))
    assert dialogue.due() == [OURS, OURS]
    assert dialogue.due() == []
    assert verb_of(dialogue, 200) == "NOOP"


def test_what_makes_a_client_act_is_refused_unless_asked_for() -> None:
    for code in (227, 228, 229, 234, 334):
        dialogue = greeted()
        dialogue.asked("NOOP")
        with pytest.raises(UnaskedReply):
            dialogue.replied(reply(code))


def test_a_server_that_owes_a_reply_is_understood_again_at_the_next_passive_one() -> None:
    dialogue = greeted()
    dialogue.asked("RETR")
    dialogue.asked("ABOR")
    assert verb_of(dialogue, 226) == "RETR"
    assert dialogue.answer(OURS) == []
    dialogue.asked("PASV")
    pending, before = dialogue.replied(reply(227))
    assert pending is not None
    assert (pending.verb, before) == ("PASV", [OURS])
    assert not dialogue.waits_for("ABOR")


def test_it_says_when_too_many_wait() -> None:
    dialogue = greeted()
    for _ in range(PENDING_MAX):
        assert not dialogue.is_full
        dialogue.asked("NOOP")
    assert dialogue.is_full
