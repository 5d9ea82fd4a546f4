"""Messages behind their lengths, and lengths that lie."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doorward.wire.dns_stream import MessageReader, framed
from doorward.wire.errors import ProtocolError

ONE, OTHER = b"1" * 12, b"2" * 300


def test_messages_come_out_whole_and_in_order() -> None:
    reader = MessageReader(512)
    assert reader.feed(framed(ONE) + framed(OTHER) + b"\0") == [ONE, OTHER]
    with pytest.raises(ProtocolError):
        reader.end()
    assert reader.feed(framed(ONE)[1:]) == [ONE]
    reader.end()


@given(st.lists(st.binary(min_size=12, max_size=60), max_size=5), st.integers(1, 70))
def test_however_the_bytes_are_cut(messages: list[bytes], size: int) -> None:
    stream = b"".join(map(framed, messages))
    reader, found = MessageReader(60), []
    for at in range(0, len(stream), size):
        found += reader.feed(stream[at : at + size])
    assert found == messages
    reader.end()


@pytest.mark.parametrize("length", [0, 1, 11, 513, 65_535])
def test_a_length_that_cannot_be_is_refused_at_once(length: int) -> None:
    reader = MessageReader(512)
    with pytest.raises(ProtocolError) as refused:
        reader.feed(framed(ONE) + length.to_bytes(2))
    assert refused.value.reason == "dns_bad_length"


@pytest.mark.parametrize("cut", [1, 2, 13])
def test_a_length_that_is_not_made_good_is_told_at_the_end(cut: int) -> None:
    reader = MessageReader(512)
    assert reader.feed(framed(ONE)[:cut]) == []
    with pytest.raises(ProtocolError):
        reader.end()
