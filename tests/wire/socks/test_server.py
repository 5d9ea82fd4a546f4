"""What clients say to us, as whole conversations."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doorward.wire.credentials import Credentials
from doorward.wire.errors import ProtocolError, WireError
from doorward.wire.socks.model import Command, Method, MethodsOffered, Request, Socks5Reply
from doorward.wire.socks.server import Event, ServerHandshake

GREETING = b"\x05\x01\x00"
LOGIN = b"\x05\x02\x00\x02" + b"\x01\x03kim\x06secret"
CONNECT_NAME = b"\x05\x01\x00\x03\x0bexample.org\x01\xbb"
CONNECT_IPV4 = b"\x05\x01\x00\x01\xc0\x00\x02\x01\x00\x50"
CONNECT_IPV6 = b"\x05\x01\x00\x04" + IPv6Address("2001:db8::1").packed + b"\x00\x50"
FAILED = b"\x00\x01\x00\x00\x00\x00\x00\x00"
REJECTED_4 = b"\x00\x5b\x00\x00\x00\x00\x00\x00"

Outcome = tuple[list[Event], bytes, bytes, tuple[str, str, bytes] | None]


def converse(*pieces: bytes) -> Outcome:
    """Feed the pieces, agree to everything; events, what we sent, what is the tunnel's, and the error."""
    handshake = ServerHandshake()
    events: list[Event] = []
    sent = b""
    waiting = list(pieces)
    try:
        while waiting:
            event = handshake.receive(waiting.pop(0))
            while event is not None:
                events.append(event)
                if isinstance(event, Request):
                    sent += handshake.reply(Socks5Reply.SUCCEEDED)
                    return events, sent, handshake.trailing + b"".join(waiting), None
                if isinstance(event, Credentials):
                    sent += handshake.credentials_reply(True)
                else:
                    sent += handshake.select_method(pick(event))
                    if sent.endswith(b"\xff"):
                        return events, sent, b"", None
                event = handshake.receive(b"")
    except ProtocolError as error:
        return events, sent, b"", (error.reason, error.detail, error.reply)
    return events, sent, b"", None


def pick(offered: MethodsOffered) -> Method:
    for method in (Method.USERNAME_PASSWORD, Method.NO_AUTHENTICATION):
        if method in offered.methods:
            return method
    return Method.NO_ACCEPTABLE


WHOLE = [
    (GREETING + CONNECT_NAME, Request(5, Command.CONNECT, "example.org", None, 443)),
    (GREETING + CONNECT_IPV4, Request(5, Command.CONNECT, None, IPv4Address("192.0.2.1"), 80)),
    (GREETING + CONNECT_IPV6, Request(5, Command.CONNECT, None, IPv6Address("2001:db8::1"), 80)),
    (LOGIN + CONNECT_NAME, Request(5, Command.CONNECT, "example.org", None, 443)),
    (
        GREETING + b"\x05\x02\x00\x01\xc0\x00\x02\x01\x00\x00",
        Request(5, Command.BIND, None, IPv4Address("192.0.2.1"), 0),
    ),
    (
        GREETING + b"\x05\x03\x00\x01\x00\x00\x00\x00\x00\x00",
        Request(5, Command.UDP_ASSOCIATE, None, IPv4Address("0.0.0.0"), 0),
    ),
    (
        b"\x04\x01\x00\x50\xc0\x00\x02\x01kim\x00",
        Request(4, Command.CONNECT, None, IPv4Address("192.0.2.1"), 80, "kim"),
    ),
    (
        b"\x04\x01\x00\x50\xc0\x00\x02\x01\x00",
        Request(4, Command.CONNECT, None, IPv4Address("192.0.2.1"), 80, ""),
    ),
    (
        b"\x04\x02\x00\x00\xc0\x00\x02\x01\xe9\x00",
        Request(4, Command.BIND, None, IPv4Address("192.0.2.1"), 0, "é"),
    ),
    (
        b"\x04\x01\x01\xbb\x00\x00\x00\x07kim\x00example.org\x00",
        Request(4, Command.CONNECT, "example.org", None, 443, "kim"),
    ),
    (
        b"\x04\x01\x01\xbb\x00\x00\x00\x00\x00",
        Request(4, Command.CONNECT, None, IPv4Address("0.0.0.0"), 443, ""),
    ),
]


@pytest.mark.parametrize(("said", "request_"), WHOLE)
def test_a_request_is_read_whole_or_byte_by_byte_and_the_tunnels_first_bytes_are_kept(
    said: bytes, request_: Request
) -> None:
    said += b"first bytes of the tunnel"
    events, sent, trailing, error = converse(said)
    assert events[-1] == request_
    assert trailing == b"first bytes of the tunnel"
    assert error is None
    assert converse(*(said[i : i + 1] for i in range(len(said)))) == (events, sent, trailing, error)


@pytest.mark.parametrize("said", [said for said, _ in WHOLE])
def test_a_conversation_cut_at_any_byte_waits_for_more(said: bytes) -> None:
    for size in range(len(said)):
        events, _, _, error = converse(said[:size])
        assert error is None
        assert not any(isinstance(event, Request) for event in events)


def test_a_login_conversation() -> None:
    handshake = ServerHandshake()
    assert handshake.receive(LOGIN[:4]) == MethodsOffered(b"\x00\x02")
    assert handshake.select_method(Method.USERNAME_PASSWORD) == b"\x05\x02"
    assert handshake.receive(LOGIN[4:]) == Credentials("kim", "secret")
    assert handshake.credentials_reply(True) == b"\x01\x00"
    assert handshake.receive(CONNECT_NAME) == WHOLE[3][1]
    assert handshake.reply(Socks5Reply.SUCCEEDED, IPv4Address("192.0.2.9"), 4097) == (
        b"\x05\x00\x00\x01\xc0\x00\x02\x09\x10\x01"
    )


def test_a_refused_login_ends_the_handshake() -> None:
    handshake = ServerHandshake()
    handshake.receive(LOGIN[:4])
    handshake.select_method(Method.USERNAME_PASSWORD)
    handshake.receive(LOGIN[4:])
    assert handshake.credentials_reply(False) == b"\x01\x01"
    with pytest.raises(WireError, match="over"):
        handshake.receive(CONNECT_NAME)


def test_no_acceptable_method_ends_the_handshake() -> None:
    handshake = ServerHandshake()
    assert handshake.receive(b"\x05\x02\x01\x80") == MethodsOffered(b"\x01\x80")
    assert handshake.select_method(Method.NO_ACCEPTABLE) == b"\x05\xff"
    with pytest.raises(WireError, match="over"):
        handshake.receive(CONNECT_NAME)


@pytest.mark.parametrize(
    ("said", "reason", "reply"),
    [
        (b"\x00", "socks_bad_version", b""),
        (b"G", "socks_bad_version", b""),
        (b"\x05\x00", "no_methods", b"\x05\xff"),
        (GREETING + b"\x04\x01\x00\x01", "socks_bad_version", b"\x05\x01" + FAILED),
        (GREETING + b"\x05\x00\x00\x01", "bad_command", b"\x05\x07" + FAILED),
        (GREETING + b"\x05\xf0\x00\x03", "bad_command", b"\x05\x07" + FAILED),
        (GREETING + b"\x05\x01\x01\x01", "bad_reserved", b"\x05\x01" + FAILED),
        (GREETING + b"\x05\x01\x00\x02", "bad_address_type", b"\x05\x08" + FAILED),
        (GREETING + b"\x05\x01\x00\x03\x00\x00\x50", "bad_name", b"\x05\x01" + FAILED),
        (GREETING + b"\x05\x01\x00\x03\x03a\x00b\x00\x50", "bad_name", b"\x05\x01" + FAILED),
        (GREETING + b"\x05\x01\x00\x03\xff" + b"a" * 255 + b"\x00\x50", "bad_name", b"\x05\x01" + FAILED),
        (GREETING + CONNECT_IPV4[:-2] + b"\x00\x00", "bad_port", b"\x05\x01" + FAILED),
        (LOGIN[:4] + b"\x05", "bad_credentials_form", b"\x01\x01"),
        (LOGIN[:4] + b"\x01\x00\x00", "bad_credentials_form", b"\x01\x01"),
        (LOGIN[:4] + b"\x01\x01\xff\x01p", "bad_credentials_form", b"\x01\x01"),
        (b"\x04\x03\x00\x50\xc0\x00\x02\x01", "bad_command", REJECTED_4),
        (b"\x04\x01\x00\x00\xc0\x00\x02\x01", "bad_port", REJECTED_4),
        (b"\x04\x01\x00\x50\xc0\x00\x02\x01" + b"u" * 256, "bad_user_id", REJECTED_4),
        (b"\x04\x01\x00\x50\x00\x00\x00\x01\x00\x00", "bad_name", REJECTED_4),
        (b"\x04\x01\x00\x50\x00\x00\x00\x01\x00\xc3\xbc\x00", "bad_name", REJECTED_4),
        (b"\x04\x01\x00\x50\x00\x00\x00\x01\x00" + b"a" * 255, "bad_name", REJECTED_4),
    ],
)
def test_a_broken_rule_is_refused_with_the_answer_the_client_understands(
    said: bytes, reason: str, reply: bytes
) -> None:
    whole = converse(said)
    error = whole[3]
    assert error is not None
    assert (error[0], error[2]) == (reason, reply)
    assert converse(said + b"more")[3] == error
    assert converse(*(said[i : i + 1] for i in range(len(said)))) == whole
    assert converse(said[:-1])[3] is None


def test_a_message_too_long_says_both_numbers() -> None:
    error = converse(b"\x04\x01\x00\x50\xc0\x00\x02\x01" + b"u" * 300)[3]
    assert error is not None
    assert error[1] == "256 bytes and no end, at most 255"


def test_the_longest_version_4_request_is_read() -> None:
    name = "a" * 253 + "."
    said = b"\x04\x01\x00\x50\x00\x00\x00\x01" + b"u" * 255 + b"\x00" + name.encode() + b"\x00"
    assert converse(said)[0] == [Request(4, Command.CONNECT, name, None, 80, "u" * 255)]


def test_version_4_hears_yes_or_no_in_its_own_words() -> None:
    handshake = ServerHandshake()
    handshake.receive(WHOLE[6][0])
    assert handshake.version == 4
    assert (
        handshake.reply(Socks5Reply.SUCCEEDED, IPv4Address("192.0.2.9"), 80)
        == b"\x00\x5a\x00\x50\xc0\x00\x02\x09"
    )
    assert (
        handshake.reply(Socks5Reply.SUCCEEDED, IPv6Address("::1"), 80) == b"\x00\x5a\x00\x50\x00\x00\x00\x00"
    )
    assert handshake.reply(Socks5Reply.NOT_ALLOWED) == REJECTED_4


@pytest.mark.parametrize("code", Socks5Reply)
def test_version_5_hears_every_reply_code(code: Socks5Reply) -> None:
    handshake = ServerHandshake()
    handshake.receive(GREETING)
    handshake.select_method(Method.NO_AUTHENTICATION)
    handshake.receive(CONNECT_IPV6)
    assert handshake.reply(code, IPv6Address("::1"), 80) == (
        bytes((5, code, 0, 4)) + IPv6Address("::1").packed + b"\x00\x50"
    )


def test_answers_out_of_turn_are_our_own_mistake() -> None:
    handshake = ServerHandshake()
    with pytest.raises(WireError, match="no methods were offered"):
        handshake.select_method(Method.NO_AUTHENTICATION)
    with pytest.raises(WireError, match="no credentials were given"):
        handshake.credentials_reply(True)
    with pytest.raises(WireError, match="no request"):
        handshake.reply(Socks5Reply.SUCCEEDED)
    handshake.receive(GREETING + CONNECT_NAME)
    with pytest.raises(WireError, match="due"):
        handshake.receive(b"")
    with pytest.raises(WireError, match="not offered"):
        handshake.select_method(Method.USERNAME_PASSWORD)


def test_a_failed_handshake_stays_failed() -> None:
    handshake = ServerHandshake()
    with pytest.raises(ProtocolError):
        handshake.receive(b"\x06")
    with pytest.raises(WireError, match="over"):
        handshake.receive(GREETING)


HEADS = [b"", GREETING, LOGIN[:4], LOGIN, b"\x04\x01\x00\x50", GREETING + b"\x05\x01\x00\x03"]


@given(st.sampled_from(HEADS), st.binary(max_size=600), st.lists(st.integers(0, 620), max_size=4))
def test_any_bytes_in_any_pieces_give_the_same_events_or_the_same_refusal(
    head: bytes, rest: bytes, cuts: list[int]
) -> None:
    said = head + rest
    whole = converse(said)
    ends = [*sorted(cuts), len(said)]
    assert converse(*(said[a:b] for a, b in zip([0, *ends], ends, strict=False))) == whole
    assert converse(*(said[i : i + 1] for i in range(len(said)))) == whole
