"""The errors of the wire room."""

from doorward.wire.errors import ProtocolError, WireError


def test_an_error_reads_as_its_slug_and_its_sentence() -> None:
    assert str(WireError("misuse", "too early")) == "misuse: too early"
    assert str(WireError("misuse")) == "misuse"


def test_a_protocol_error_says_what_to_send_before_closing() -> None:
    error = ProtocolError("bad_port", "port 0", reply=b"\x05", code=3)
    assert (error.reason, error.detail, error.reply, error.code) == ("bad_port", "port 0", b"\x05", 3)


def test_without_a_word_is_the_default() -> None:
    error = ProtocolError("bad_port")
    assert (error.reply, error.code) == (b"", None)
    assert isinstance(error, WireError)
