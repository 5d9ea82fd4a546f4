"""What clients say, as whole conversations."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doorward.wire.errors import ProtocolError
from doorward.wire.ftp.commands import Command, CommandReader

Outcome = tuple[list[Command], str | None]


def read(*pieces: bytes) -> Outcome:
    reader = CommandReader()
    commands: list[Command] = []
    try:
        for piece in pieces:
            reader.feed(piece)
            while (command := reader.next()) is not None:
                commands.append(command)
    except ProtocolError as error:
        return commands, error.reason
    return commands, None


def bytewise(data: bytes) -> Outcome:
    return read(*(data[i : i + 1] for i in range(len(data))))


CONVERSATION = (
    b"user kim\r\nPASS  two spaces \r\nTYPE I\r\nPASV\r\nRETR \xc3\xa9\xff.txt\r\nPORT 127,0,0,1,4,5\r\n"
    b"RETR a  b\r\n\xff\xf4\xff\xf2ABOR\r\nSITE CHMOD 644 a\r\nCWD \r\nQUIT\r\n"
)
COMMANDS = [
    Command("USER", b"kim"),
    Command("PASS", b" two spaces "),
    Command("TYPE", b"I"),
    Command("PASV"),
    Command("RETR", b"\xc3\xa9\xff.txt"),
    Command("PORT", b"127,0,0,1,4,5"),
    Command("RETR", b"a  b"),
    Command("ABOR"),
    Command("SITE", b"CHMOD 644 a"),
    Command("CWD", b""),
    Command("QUIT"),
]


def test_a_conversation_whole_or_byte_by_byte() -> None:
    assert read(CONVERSATION) == (COMMANDS, None)
    assert bytewise(CONVERSATION) == (COMMANDS, None)
    assert read(CONVERSATION[:-1]) == (COMMANDS[:-1], None)


def test_what_is_written_is_read_as_the_same() -> None:
    assert read(b"".join(command.wire for command in COMMANDS)) == (COMMANDS, None)
    assert Command("PASV").wire == b"PASV\r\n"
    assert Command("CWD", b"").wire == b"CWD \r\n"


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (b" PORT 1,2,3,4,5,6\r\n", "ftp_bad_command"),
        (b"\tPORT 1,2,3,4,5,6\r\n", "ftp_bad_command"),
        (b"PASS\tsecret\r\n", "ftp_bad_command"),
        (b"Host: example.org\r\n", "ftp_bad_command"),
        (b"\r\n", "ftp_bad_command"),
        (b"1ABC\r\n", "ftp_bad_command"),
        (b"ABCDEFGHIJKLMNOPQ\r\n", "ftp_bad_command"),
        (b"P\xc3\x96RT 1\r\n", "ftp_bad_command"),
        (b"\x16\x03\x01\x02\x00\x01\x00\n", "ftp_nul"),
        (b"\xff\xff\r\n", "ftp_telnet"),
        (b"\xffABOR\r\n", "ftp_telnet"),
        (b"\xff\xfa\x01\xff\xf0NOOP\r\n", "ftp_telnet"),
        (b"\xff\r\n", "ftp_telnet"),
        (b"\xff\xfd\r\n", "ftp_telnet"),
        (b"\xff\xfd\n", "ftp_telnet"),
    ],
)
def test_what_is_no_command_is_refused(said: bytes, reason: str) -> None:
    assert read(said) == ([], reason)
    assert bytewise(said) == ([], reason)


@pytest.mark.parametrize(
    "telnet", [b"\xff\xf4\xff\xf2", b"\xff\xf1", b"\xff\xfd\x03\xff\xfb\x01", b"\xff\xfe\xff"]
)
def test_telnet_before_a_verb_is_left_out(telnet: bytes) -> None:
    assert read(telnet + b"ABOR\r\n") == ([Command("ABOR")], None)


def test_what_is_no_command_is_not_quoted_for_it_may_be_a_password() -> None:
    reader = CommandReader()
    reader.feed(b"PASS\tsecret\r\n")
    with pytest.raises(ProtocolError) as caught:
        reader.next()
    assert "secret" not in caught.value.detail


PARTS = st.sampled_from(
    [b"PORT ", b"1,2,3,4,5,6", b"\r\n", b"\n", b"\xff", b"\xf4", b" ", b"x", b"\0", b"NOOP"]
)


@given(st.lists(PARTS, max_size=20).map(b"".join))
def test_any_bytes_give_the_same_commands_or_the_same_refusal(said: bytes) -> None:
    whole = read(said)
    assert bytewise(said) == whole
    assert read(b"".join(command.wire for command in whole[0])) == (whole[0], None)
