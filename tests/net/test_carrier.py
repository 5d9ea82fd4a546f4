"""A stream has no datagrams, and says so. What else a carrier is, its contract suite runs every one of them through."""

from __future__ import annotations

import pytest

from doorward.api import NotSupported
from doorward.net.carrier import StreamOnly

pytestmark = pytest.mark.anyio


async def test_datagrams_on_a_stream_are_refused_with_the_call_that_is_meant() -> None:
    stream = StreamOnly()
    with pytest.raises(NotSupported, match="recv"):
        await stream.recv_from()
    with pytest.raises(NotSupported, match="send"):
        await stream.send_to(b"x", ("192.0.2.1", 53))
