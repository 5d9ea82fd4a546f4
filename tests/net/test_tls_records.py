"""Records without a wire: conversations in memory, whole and byte by byte, honest and not."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.net.certificates import OTHER_NAME, SERVER_NAME, Authority
from tests.net.openssl import ask_for_key_update, ask_for_renegotiation, send_small_records
from tests.net.tls_ends import Talk

from doorward.api.errors import BadArgument, Side, TLSFailed, TLSUntrusted
from doorward.net.tls_context import client_context, server_context
from doorward.net.tls_records import RECORD_BYTES, Records

VERSIONS = [ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_2]


@pytest.fixture(scope="module")
def contexts(authority: Authority) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    return client_context(ca=authority.file), server_context(authority.identity("server"))


@pytest.fixture(params=VERSIONS, ids=lambda version: version.name)
def talk(request: pytest.FixtureRequest, authority: Authority) -> Talk:
    """Past the handshake, in each version."""
    return shaken(authority, request.param)


@pytest.fixture
def newest(authority: Authority) -> Talk:
    return shaken(authority, ssl.TLSVersion.TLSv1_3)


def shaken(authority: Authority, version: ssl.TLSVersion) -> Talk:
    client = client_context(ca=authority.file)
    client.maximum_version = version
    talk = Talk(client, server_context(authority.identity("server")))
    talk.shake()
    return talk


def put(one: Records, data: bytes) -> bytes:
    """Encrypt it; what goes onto the wire."""
    assert one.encrypt(memoryview(data)) == len(data)
    return one.take_outgoing()


def everything(one: Records) -> bytes:
    """All plaintext there is."""
    found = b""
    while part := one.decrypt(1):
        found += part
    return found


def test_after_the_handshake_both_sides_know_how_they_speak(talk: Talk) -> None:
    assert talk.client.version == talk.server.version != ""
    assert talk.client.cipher == talk.server.cipher != ""
    assert talk.client.server_name == talk.server.server_name == SERVER_NAME
    assert talk.client.peer_names == (("DNS", SERVER_NAME), ("IP Address", "127.0.0.1"))
    assert talk.client.peer_certificate is not None
    assert (talk.client.alpn, talk.server.alpn) == (None, None)
    assert (talk.server.peer_certificate, talk.server.peer_names) == (None, ())


def test_before_the_handshake_there_is_nothing_to_know(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    fresh = Talk(*contexts).client
    assert (fresh.cipher, fresh.alpn, fresh.ready, fresh.ended) == ("", None, False, False)


@given(st.lists(st.integers(1, 700), min_size=1, max_size=8))
@settings(max_examples=25, deadline=None)
def test_a_handshake_cut_anywhere_is_the_same_handshake(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext], cuts: list[int]
) -> None:
    talk = Talk(*contexts)
    pairs = [(talk.client, talk.server), (talk.server, talk.client)]
    turn = 0
    while not (talk.client.ready and talk.server.ready):
        one, other = pairs[turn % 2]
        if not one.ready:
            one.handshake()
        data, index = one.take_outgoing(), 0
        while data:
            other.feed(data[: cuts[index % len(cuts)]])
            data = data[cuts[index % len(cuts)] :]
            index += 1
            if data and not other.ready:
                assert not other.handshake()
        turn += 1
    talk.server.feed(put(talk.client, b"hello"))
    assert everything(talk.server) == b"hello"


def test_bytes_are_the_same_whole_and_one_by_one(talk: Talk) -> None:
    data = os.urandom(3 * RECORD_BYTES + 1)
    talk.server.feed(put(talk.client, data))
    assert everything(talk.server) == data
    found = b""
    for byte in put(talk.client, data[:5000]):
        talk.server.feed(bytes([byte]))
        found += everything(talk.server)
    assert found == data[:5000]


def test_no_more_is_decrypted_than_was_asked_for_but_for_one_record(talk: Talk) -> None:
    talk.server.feed(put(talk.client, bytes(5 * RECORD_BYTES)))
    assert len(talk.server.decrypt(1)) == RECORD_BYTES
    assert len(talk.server.decrypt(RECORD_BYTES + 1)) == 2 * RECORD_BYTES
    assert len(talk.server.decrypt(100 * RECORD_BYTES)) == 2 * RECORD_BYTES
    assert talk.server.decrypt(1) == b""
    assert not talk.server.ended


def test_an_end_may_be_said_with_unread_bytes_in_and_takes_nothing_from_them(talk: Talk) -> None:
    whole = put(talk.server, b"early") + put(talk.server, b"more")
    talk.client.feed(whole[:-3])
    assert talk.client.decrypt(1) == b"early"
    assert talk.client.end()
    talk.server.feed(talk.client.take_outgoing())
    assert talk.server.decrypt(1) == b""
    assert talk.server.ended
    talk.client.feed(whole[-3:] + put(talk.server, b" and on"))
    assert everything(talk.client) == b"more and on"
    assert talk.server.end()
    talk.client.feed(talk.server.take_outgoing())
    assert talk.client.decrypt(1) == b""
    assert talk.client.ended


def test_what_comes_after_the_end_is_not_heard(talk: Talk) -> None:
    said = put(talk.client, b"last")
    talk.client.end()
    talk.server.feed(said + talk.client.take_outgoing() + b"\x17\x03\x03\x00\x05after" * 1000)
    assert talk.server.decrypt(100) == b"last"
    assert talk.server.ended
    assert talk.server.decrypt(100) == b""


def test_what_came_before_a_bad_record_is_given_out_before_the_failure(talk: Talk) -> None:
    bad = bytearray(put(talk.client, b"first") + put(talk.client, b"second"))
    bad[-1] ^= 1
    talk.server.feed(bytes(bad))
    assert talk.server.decrypt(100) == b"first"
    with pytest.raises(TLSFailed, match="bad record mac") as caught:
        talk.server.decrypt(100)
    assert caught.value.side is Side.INTERNAL
    with pytest.raises(TLSFailed, match="bad record mac"):
        talk.server.decrypt(100)
    talk.client.feed(talk.server.take_outgoing())
    with pytest.raises(TLSFailed, match="the peer says: bad record mac"):
        talk.client.decrypt(1)
    with pytest.raises(TLSFailed):
        talk.client.encrypt(memoryview(b"x"))


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x05\x01\x00" + bytes(20),
        b"\x16\x03\x01" + (2**14 + 2049).to_bytes(2, "big") + bytes(2**14 + 2049),
        b"\x17\x03\x03\x00\x05hello",
        b"\x16\x03\x01\x00\x00" * 100,
        b"\x15\x03\x01\x00\x02\x01\x5a" * 100,
        b"\x14\x03\x03\x00\x01\x01" * 100,
        b"\x16\x03\x01\x00\x04\x01\xff\xff\xff" + bytes(100),
        bytes(100),
    ],
    ids=["http", "socks", "oversized", "early data", "empty", "alerts", "ciphers", "long hello", "zeros"],
)
def test_garbage_in_place_of_a_hello_is_refused(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext], garbage: bytes
) -> None:
    for side in ("client", "server"):
        records: Records = getattr(Talk(*contexts), side)
        if side == "client":
            records.handshake()
        records.feed(garbage)
        with pytest.raises(TLSFailed) as caught:
            records.handshake()
        assert caught.value.detail
        assert not records.ready


def test_a_record_larger_than_any_may_be_is_refused(talk: Talk) -> None:
    size = 2**14 + 2049
    talk.server.feed(b"\x17\x03\x03" + size.to_bytes(2, "big") + bytes(size))
    with pytest.raises(TLSFailed, match="length too long"):
        talk.server.decrypt(1)


def test_alerts_that_only_warn_are_not_heard_forever(authority: Authority) -> None:
    talk = shaken(authority, ssl.TLSVersion.TLSv1_2)
    talk.server.feed(b"\x15\x03\x03\x00\x02\x01\x5a" * 1000)
    with pytest.raises(TLSFailed):
        talk.server.decrypt(1)


@pytest.mark.parametrize("side", ["client", "server"])
def test_another_handshake_in_the_middle_is_not_begun(authority: Authority, side: str) -> None:
    contexts = client_context(ca=authority.file), server_context(authority.identity("server"))
    contexts[0].maximum_version = ssl.TLSVersion.TLSv1_2
    contexts[side == "server"].options &= ~ssl.OP_NO_RENEGOTIATION
    talk = Talk(*contexts)
    talk.shake()
    asks, asked = (talk.client, talk.server) if side == "client" else (talk.server, talk.client)
    ask_for_renegotiation(asks._tls)
    asked.feed(asks.take_outgoing())
    assert asked.decrypt(1) == b""
    assert 0 < asked.outgoing < 100, "a warning, and no hello"
    assert everything(asked) == b""


def test_a_key_update_is_answered_and_the_talk_goes_on(newest: Talk) -> None:
    for number in range(200):
        ask_for_key_update(newest.client._tls)
        newest.server.feed(newest.client.take_outgoing())
        assert newest.server.decrypt(1) == b""
        newest.server.feed(put(newest.client, b"%d" % number))
        assert newest.server.decrypt(1) == b"%d" % number
        with_answer = put(newest.server, b"so")
        assert len(with_answer) == 2 * 22 + 5 + 2, "the answer, and the data"
        newest.client.feed(with_answer)
        assert newest.client.decrypt(1) == b"so"


def half_a_message(authority: Authority) -> tuple[Talk, Callable[[], None]]:
    """A client that has half of the server's ticket, and what brings it the other half."""
    server = server_context(authority.identity("server"), ask_client="required", ca=authority.file)
    server.options &= ~ssl.OP_NO_TICKET
    server.num_tickets = 1
    talk = Talk(client_context(ca=authority.file, identity=authority.identity("client")), server)
    send_small_records(talk.server._tls, 512)
    while not talk.server.ready:
        talk.client.handshake()
        talk.server.feed(talk.client.take_outgoing())
        talk.server.handshake()
        if not talk.server.ready:
            talk.client.feed(talk.server.take_outgoing())
    ticket = talk.server.take_outgoing()
    assert len(ticket) > 550, "more than one record"
    talk.client.feed(ticket[:-10])
    assert talk.client.decrypt(1) == b""
    return talk, lambda: talk.client.feed(ticket[-10:])


def test_in_the_middle_of_a_message_of_the_peers_nothing_is_taken_until_the_rest_is_in(
    authority: Authority,
) -> None:
    talk, bring_the_rest = half_a_message(authority)
    assert talk.client.encrypt(memoryview(b"hello")) == 0
    assert not talk.client.end()
    bring_the_rest()
    assert talk.client.encrypt(memoryview(b"hello")) == 5
    talk.server.feed(talk.client.take_outgoing())
    assert talk.server.decrypt(1) == b"hello"


def test_an_end_waits_for_the_rest_of_a_message_as_well(authority: Authority) -> None:
    talk, bring_the_rest = half_a_message(authority)
    assert not talk.client.end()
    bring_the_rest()
    assert talk.client.decrypt(1) == b""
    assert talk.client.end()
    talk.server.feed(talk.client.take_outgoing())
    assert talk.server.decrypt(1) == b""
    assert talk.server.ended


def test_a_certificate_for_another_name_is_refused_in_so_many_words(authority: Authority) -> None:
    talk = Talk(client_context(ca=authority.file), server_context(authority.identity("server")), OTHER_NAME)
    with pytest.raises(
        TLSUntrusted, match=r"for 'other\.test' was not accepted: Hostname mismatch"
    ) as caught:
        talk.shake()
    assert caught.value.side is Side.EXTERNAL


@pytest.mark.parametrize("name", ["", ".test", "a" * 300, "\x00", "a..b"])
def test_a_name_that_no_certificate_could_have_is_refused_before_a_byte(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext], name: str
) -> None:
    with pytest.raises(BadArgument, match="TLS with"):
        Talk(*contexts, name)
