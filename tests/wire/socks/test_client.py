"""What we say to an upstream proxy, alone and against our own server role."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doorward.wire.credentials import Credentials
from doorward.wire.errors import ProtocolError, WireError
from doorward.wire.socks.client import Socks4Client, Socks5Client
from doorward.wire.socks.model import Bound, Command, IPAddress, Method, MethodsOffered, Request, Socks5Reply
from doorward.wire.socks.server import ServerHandshake

BOUND = Bound(None, IPv4Address("192.0.2.9"), 4097)
OPEN = b"\x05\x00"
REPLY = b"\x05\x00\x00\x01\xc0\x00\x02\x09\x10\x01"
REPLY_4 = b"\x00\x5a\x10\x01\xc0\x00\x02\x09"


def serve(handshake: ServerHandshake, said: bytes, code: Socks5Reply) -> tuple[bytes, Request | None]:
    """Answer what the client said, as a proxy that knows kim and dials from 192.0.2.9."""
    answer = b""
    event = handshake.receive(said)
    while event is not None:
        if isinstance(event, Request):
            return answer + handshake.reply(code, BOUND.address, BOUND.port), event
        if isinstance(event, MethodsOffered):
            login = Method.USERNAME_PASSWORD in event.methods
            answer += handshake.select_method(Method.USERNAME_PASSWORD if login else Method.NO_AUTHENTICATION)
        else:
            accepted = event == Credentials("kim", "secret")
            answer += handshake.credentials_reply(accepted)
            if not accepted:
                return answer, None
        event = handshake.receive(b"")
    return answer, None


def talk(
    client: Socks4Client | Socks5Client, code: Socks5Reply = Socks5Reply.SUCCEEDED
) -> tuple[Bound | None, Request | None]:
    server = ServerHandshake()
    said = client.start()
    for _ in range(5):
        answer, request = serve(server, said, code)
        said, bound = client.receive(answer + b"banner" if request else answer)
        if bound is not None:
            return bound, request
    return None, None


@pytest.mark.parametrize("user", [None, "kim"])
@pytest.mark.parametrize("destination", ["example.org", IPv4Address("192.0.2.1"), IPv6Address("2001:db8::1")])
def test_version_5_client_and_server_understand_each_other(
    destination: str | IPAddress, user: str | None
) -> None:
    client = Socks5Client(destination, 443, username=user, password="secret")
    host, address = (destination, None) if isinstance(destination, str) else (None, destination)
    assert talk(client) == (BOUND, Request(5, Command.CONNECT, host, address, 443))
    assert client.trailing == b"banner"


@pytest.mark.parametrize("destination", ["example.org", IPv4Address("192.0.2.1")])
def test_version_4_client_and_server_understand_each_other(destination: str | IPv4Address) -> None:
    client = Socks4Client(destination, 443, user_id="kim")
    host, address = (destination, None) if isinstance(destination, str) else (None, destination)
    assert talk(client) == (BOUND, Request(4, Command.CONNECT, host, address, 443, "kim"))
    assert client.trailing == b"banner"


def test_an_association_may_leave_its_own_end_open() -> None:
    client = Socks5Client(IPv4Address("0.0.0.0"), 0, command=Command.UDP_ASSOCIATE)
    assert talk(client)[1] == Request(5, Command.UDP_ASSOCIATE, None, IPv4Address("0.0.0.0"), 0)


def test_a_wrong_password_is_told_as_such() -> None:
    with pytest.raises(ProtocolError) as caught:
        talk(Socks5Client("example.org", 443, username="kim", password="wrong"))
    assert (caught.value.reason, caught.value.code) == ("login_refused", 1)


def test_a_refusal_carries_the_upstreams_code() -> None:
    with pytest.raises(ProtocolError) as caught:
        talk(Socks5Client("example.org", 443), Socks5Reply.NOT_ALLOWED)
    assert (caught.value.reason, caught.value.code) == ("upstream_refused", Socks5Reply.NOT_ALLOWED)
    assert caught.value.detail == "the proxy replied 2: not allowed"
    with pytest.raises(ProtocolError) as caught:
        talk(Socks4Client("example.org", 443), Socks5Reply.NOT_ALLOWED)
    assert (caught.value.reason, caught.value.code) == ("upstream_refused", 0x5B)


def test_the_destination_is_told_once_the_login_is_accepted() -> None:
    client = Socks5Client("example.org", 443, username="kim", password="secret")
    seen = [client.asked]
    for answer in (b"\x05", b"\x02", b"\x01", b"\x00", REPLY):
        client.receive(answer)
        seen.append(client.asked)
    assert seen == [False, False, False, False, True, True]


def test_the_password_is_not_sent_to_a_proxy_that_does_not_ask() -> None:
    client = Socks5Client("example.org", 443, username="kim", password="secret")
    assert client.start() == b"\x05\x02\x00\x02"
    sent, _ = client.receive(OPEN)
    assert sent == b"\x05\x01\x00\x03\x0bexample.org\x01\xbb"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"\x04\x00", "socks_bad_version"),
        (b"HTTP/1.1 400", "socks_bad_version"),
        (b"\x05\xff", "no_method"),
        (b"\x05\x02", "bad_method"),
        (b"\x05\x01", "bad_method"),
        (OPEN + b"\x04\x00", "socks_bad_version"),
        (OPEN + b"\x05\x63", "upstream_refused"),
        (OPEN + b"\x05\x00\x01", "bad_reserved"),
        (OPEN + b"\x05\x00\x00\x02", "bad_address_type"),
        (OPEN + b"\x05\x00\x00\x03\x01\x00\x00\x00", "bad_name"),
    ],
)
def test_an_upstream_that_breaks_a_rule_is_refused(answer: bytes, reason: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        Socks5Client("example.org", 443).receive(answer)
    assert caught.value.reason == reason
    client = Socks5Client("example.org", 443)
    for size in range(len(answer) - 1):
        if reason != "socks_bad_version":
            assert client.receive(answer[size : size + 1])[1] is None


def test_a_login_answer_of_another_version_is_refused() -> None:
    with pytest.raises(ProtocolError) as caught:
        Socks5Client("example.org", 443, username="kim").receive(b"\x05\x02\x05\x00")
    assert caught.value.reason == "socks_bad_version"


def test_a_version_4_reply_of_another_version_is_refused() -> None:
    with pytest.raises(ProtocolError) as caught:
        Socks4Client("example.org", 443).receive(b"\x04\x5a")
    assert caught.value.reason == "socks_bad_version"


@pytest.mark.parametrize("version", [4, 5])
def test_answers_may_come_byte_by_byte_and_nothing_is_read_after_the_end(version: int) -> None:
    client = Socks5Client("example.org", 443) if version == 5 else Socks4Client("example.org", 443)
    answers = OPEN + REPLY if isinstance(client, Socks5Client) else REPLY_4
    for size in range(len(answers) - 1):
        assert client.receive(answers[size : size + 1])[1] is None
    assert client.receive(answers[-1:]) == (b"", BOUND)
    assert client.trailing == b""
    with pytest.raises(WireError, match="over"):
        client.receive(b"x")


def test_what_cannot_be_asked_is_not_sent() -> None:
    with pytest.raises(ProtocolError, match="bad_name"):
        Socks5Client("a\0b", 443)
    with pytest.raises(ProtocolError, match="bad_name"):
        Socks4Client("bücher.example", 443)
    with pytest.raises(ProtocolError, match="bad_user_id"):
        Socks4Client("example.org", 443, user_id="kim\0example.net")
    with pytest.raises(ProtocolError, match="bad_user_id"):
        Socks4Client("example.org", 443, user_id="\u597d")
    with pytest.raises(ProtocolError, match="bad_credentials_form"):
        Socks5Client("example.org", 443, username="")
    with pytest.raises(WireError, match="misuse"):
        Socks5Client("example.org", 443, command=Command.BIND)
    with pytest.raises(WireError, match="misuse"):
        Socks4Client(IPv4Address("0.0.0.5"), 443)
    with pytest.raises(WireError, match="misuse"):
        Socks5Client("example.org", 65_536)


@given(st.sampled_from([b"", OPEN, b"\x05\x02\x01\x00", OPEN + REPLY[:3]]), st.binary(max_size=300))
def test_any_bytes_from_an_upstream_raise_only_the_documented_error(head: bytes, rest: bytes) -> None:
    answers = head + rest
    whole = outcome(answers)
    assert outcome(*(answers[i : i + 1] for i in range(len(answers)))) == whole


def outcome(*pieces: bytes) -> tuple[bytes, Bound | None, bytes, tuple[str, str] | None]:
    client = Socks5Client("example.org", 443, username="kim", password="secret")
    sent = b""
    for index, piece in enumerate(pieces):
        try:
            more, bound = client.receive(piece)
        except ProtocolError as error:
            return b"", None, b"", (error.reason, error.detail)
        sent += more
        if bound is not None:
            return sent, bound, client.trailing + b"".join(pieces[index + 1 :]), None
    return sent, None, b"", None
