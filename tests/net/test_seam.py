"""The system's errors, and what becomes of them."""

from __future__ import annotations

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doorward.api.errors import (
    ConnectionRefused,
    DoorwardError,
    LinkError,
    OutOfResources,
    PeerReset,
    Side,
    TimedOut,
    Unreachable,
)
from doorward.net.seam import translate


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ECONNREFUSED, ConnectionRefused),
        (errno.ECONNRESET, PeerReset),
        (errno.EPIPE, PeerReset),
        (errno.ENOTCONN, PeerReset),
        (errno.EHOSTUNREACH, Unreachable),
        (errno.ENETUNREACH, Unreachable),
        (errno.ETIMEDOUT, TimedOut),
        (errno.EMFILE, OutOfResources),
        (errno.ENFILE, OutOfResources),
        (errno.ENOMEM, OutOfResources),
        (errno.ENOSPC, OutOfResources),
        (errno.EADDRNOTAVAIL, OutOfResources),
        (errno.EADDRINUSE, LinkError),
        (errno.EACCES, LinkError),
    ],
)
def test_an_error_says_what_happened_in_our_words(number: int, kind: type[DoorwardError]) -> None:
    assert type(translate(number, Side.EXTERNAL)) is kind


@given(number=st.none() | st.integers(-200, 200), side=st.sampled_from(Side))
def test_any_number_becomes_an_error_of_the_world_on_its_side(number: int | None, side: Side) -> None:
    error = translate(number, side)
    assert isinstance(error, LinkError)
    assert error.side is side
    assert error.detail
