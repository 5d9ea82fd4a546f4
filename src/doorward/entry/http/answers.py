"""The engine's refusals as HTTP answers: status, sentence, reason."""

from __future__ import annotations

from typing import Final

from doorward.api.errors import ReplyHint
from doorward.engine.outcome import Refusal
from doorward.engine.target import Target
from doorward.wire.http import Request, refusal

STATUS: Final = {
    ReplyHint.NOT_ALLOWED: 403,
    ReplyHint.NEEDS_USER: 407,
    ReplyHint.NAME_NOT_FOUND: 502,
    ReplyHint.REFUSED: 502,
    ReplyHint.NETWORK_UNREACHABLE: 502,
    ReplyHint.HOST_UNREACHABLE: 502,
    ReplyHint.TIMED_OUT: 504,
    ReplyHint.ADDRESS_IN_USE: 502,
    ReplyHint.BUSY: 503,
    ReplyHint.FAILED: 502,
}

_SENTENCES: Final = {
    ReplyHint.NOT_ALLOWED: "{target} is not allowed",
    ReplyHint.NEEDS_USER: "{target} is allowed to some users only: say who you are",
    ReplyHint.NAME_NOT_FOUND: "the name of {target} has no address",
    ReplyHint.REFUSED: "{target} refused the connection",
    ReplyHint.NETWORK_UNREACHABLE: "{target} cannot be reached",
    ReplyHint.HOST_UNREACHABLE: "{target} cannot be reached",
    ReplyHint.TIMED_OUT: "{target} did not answer in time",
    ReplyHint.ADDRESS_IN_USE: "the address to listen on for {target} is in use",
    ReplyHint.BUSY: "the firewall has no room for {target} now; try again",
    ReplyHint.FAILED: "{target} could not be connected",
}


def answer(refused: Refusal, target: Target, request: Request, *, keep_alive: bool) -> bytes:
    """The whole response for a request that got no connection."""
    sentence = _SENTENCES[refused.hint].format(target=target)
    if refused.filter is not None:
        sentence += f" by the filter {refused.filter}"
    return refusal(
        STATUS[refused.hint],
        refused.reason,
        sentence,
        rule=refused.rule,
        request=request,
        keep_alive=keep_alive,
    )
