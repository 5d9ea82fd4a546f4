"""What a filter raised, as one of our errors.

Knows nothing of connections; handlers and data filters are contained alike. A task group's errors come in a group:
what the filter did itself counts before what it met on a wire, so that `Refuse` in one of its tasks is a refusal.
"""

from __future__ import annotations

from collections.abc import Iterator

from doorward.api.errors import DoorwardError, FilterFailed, FilterStalled, LinkError, Terminating


def contained(error: BaseException) -> DoorwardError:
    """FilterFailed for what is none of our errors, FilterStalled for a deadline of its own that passed."""
    if isinstance(error, BaseExceptionGroup):
        errors = list(_leaves(error))
        return contained(next((e for e in errors if not isinstance(e, LinkError | Terminating)), errors[0]))
    if isinstance(error, DoorwardError):
        return error
    if isinstance(error, TimeoutError):
        return FilterStalled(str(error) or "a deadline of its own passed")
    return FilterFailed(f"{type(error).__name__}: {error}")


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
