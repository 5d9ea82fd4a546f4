"""What servers say, as whole conversations."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doorward.wire.errors import ProtocolError
from doorward.wire.ftp.replies import LINES_MAX, REPLY_BYTES_MAX, Reply, ReplyReader

Outcome = tuple[list[Reply], str | None]


def read(*pieces: bytes) -> Outcome:
    reader = ReplyReader()
    replies: list[Reply] = []
    try:
        for piece in pieces:
            reader.feed(piece)
            while (reply := reader.next()) is not None:
                replies.append(reply)
    except ProtocolError as error:
        return replies, error.reason
    return replies, None


def bytewise(data: bytes) -> Outcome:
    return read(*(data[i : i + 1] for i in range(len(data))))


CONVERSATION = (
    b"120 wait\r\n220-Hello\r\n220-this is\r\n  220 it\r\n\r\n220 ready\r\n331 \xff\r\n230\r\n"
    b"211-Features:\r\n MDTM\r\n SIZE\r\n211 End\r\n227 Entering Passive Mode (127,0,0,1,4,5).\r\n150 ok\r\n"
    b"226 done\r\n632 bWFuZ2xlZA==\r\n"
)
REPLIES = [
    Reply(120, (b"wait",)),
    Reply(220, (b"Hello", b"220-this is", b"  220 it", b"", b"ready")),
    Reply(331, (b"\xff",)),
    Reply(230, (b"",)),
    Reply(211, (b"Features:", b" MDTM", b" SIZE", b"End")),
    Reply(227, (b"Entering Passive Mode (127,0,0,1,4,5).",)),
    Reply(150, (b"ok",)),
    Reply(226, (b"done",)),
    Reply(632, (b"bWFuZ2xlZA==",)),
]


def test_a_conversation_whole_or_byte_by_byte() -> None:
    assert read(CONVERSATION) == (REPLIES, None)
    assert bytewise(CONVERSATION) == (REPLIES, None)


def test_what_is_written_is_read_as_the_same() -> None:
    assert read(b"".join(reply.wire for reply in REPLIES)) == (REPLIES, None)
    assert Reply(230, (b"",)).wire == b"230 \r\n"


def test_only_a_reply_that_is_no_promise_of_more_is_final() -> None:
    assert [reply.code for reply in REPLIES if not reply.is_final] == [120, 150]


def test_no_line_in_the_middle_can_be_taken_for_the_last() -> None:
    [reply], _ = read(b"227-a\r\n226 done\r\n227\x41\r\n226-b\r\n999\r\n227-c\r\n227 end\r\n")
    assert reply.wire == b"227-a\r\n 226 done\r\n 227A\r\n 226-b\r\n 999\r\n227-c\r\n227 end\r\n"
    assert reply.text == b"a\n226 done\n227A\n226-b\n999\n227-c\nend"


@pytest.mark.parametrize(
    "said",
    [b"SSH-2.0-x\r\n", b"HTTP/1.1 400 no\r\n", b"\r\n", b"22\r\n", b"2200 x\r\n", b"020 x\r\n",
     b"720 x\r\n", b" 220 x\r\n",
     b"220\tx\r\n", b"\xff\xfd\x01220 x\r\n", b"220x\r\n"],
)  # fmt: skip
def test_what_is_no_reply_is_refused(said: bytes) -> None:
    assert read(said) == ([], "ftp_bad_reply")
    assert bytewise(said) == ([], "ftp_bad_reply")


def test_a_reply_without_end_has_a_limit() -> None:
    assert read(b"220-\r\n" + b"\r\n" * (LINES_MAX - 2) + b"220 \r\n")[1] is None
    assert read(b"220-\r\n" + b"\r\n" * (LINES_MAX - 1)) == ([], "ftp_reply_too_long")
    line = b"x" * 8190 + b"\r\n"
    assert read(b"220-\r\n" + line * (REPLY_BYTES_MAX // 8190 + 1)) == ([], "ftp_reply_too_long")


def test_what_is_held_is_counted() -> None:
    reader = ReplyReader()
    reader.feed(b"220-abc\r\ndef\r\n22")
    assert reader.next() is None
    assert reader.held == 8


PARTS = st.sampled_from(
    [b"220", b"-", b" ", b"x", b"\r\n", b"\n", b"227", b"150 ok\r\n", b"220-a\r\n", b"220 b\r\n", b"\0"]
)


@given(st.lists(PARTS, max_size=20).map(b"".join))
def test_any_bytes_give_the_same_replies_or_the_same_refusal(said: bytes) -> None:
    whole = read(said)
    assert bytewise(said) == whole
    again = read(b"".join(reply.wire for reply in whole[0]))
    assert [reply.code for reply in again[0]] == [reply.code for reply in whole[0]]
