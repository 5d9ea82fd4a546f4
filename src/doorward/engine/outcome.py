"""What becomes of a connection: why there is none, or how it was over."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from doorward.api.errors import FilterError, Side

if TYPE_CHECKING:
    from doorward.api.errors import DoorwardError, ReplyHint


class Refusal(NamedTuple):
    """Why there is no connection. `action` is `deny` (policy or a filter) or `fail` (it could not be done).

    `rule` or `filter` names who said no.
    """

    action: str
    reason: str
    hint: ReplyHint
    rule: str | None = None
    detail: str = ""
    filter: str | None = None


class End(NamedTuple):
    """How it was over: a slug, and the side that ended it."""

    how: str
    by: str


def end_of(error: DoorwardError) -> End:
    """How a connection ended that an error ended."""
    if isinstance(error, FilterError):
        return End(error.reason, Side.OURS)
    return End(error.reason, error.side)
