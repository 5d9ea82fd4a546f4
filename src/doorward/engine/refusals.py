"""A refusal as the error that is raised to a filter which asked in a client's name.

A refusal keeps the words of what was met on the way, and not the kind: that is remembered beside it.
"""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from typing import TYPE_CHECKING, Any

from doorward.api.errors import AccessDenied, DoorwardError, OutOfResources

if TYPE_CHECKING:
    from doorward.engine.outcome import Refusal


def error_of(refusal: Refusal, met: Sequence[DoorwardError]) -> DoorwardError:
    """Why there is no connection; `met` is what `keeping` has met."""
    if refusal.action == "fail":
        if met:
            return met[-1]
        if refusal.reason == "log_unavailable":
            return OutOfResources(refusal.detail)
    return AccessDenied(refusal.reason, refusal.detail, hint=refusal.hint)


async def keeping(opening: Coroutine[Any, Any, None], met: list[DoorwardError]) -> None:
    """Run it, and remember what it raises."""
    try:
        await opening
    except DoorwardError as error:
        met.append(error)
        raise
