"""Hostile bytes become a query or a documented refusal, and replies are what clients expect."""

from __future__ import annotations

from ipaddress import ip_address

import dns.flags
import dns.message
import dns.rcode
import dns.reversename
import dns.rrset
import dns.tsigkeyring
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.engine.names.messages import ID, Read, ask

from doorward.engine.names.message import (
    NXDOMAIN,
    PASSED_ON_TYPES,
    BadMessage,
    Extended,
    Query,
    read_query,
    refusal,
)
from doorward.net.nameservers import answers

# ExAmple.org A IN, recursion desired, written by hand.
GOLDEN = (
    bytes.fromhex("1234 0100 0001 0000 0000 0000 07") + b"ExAmple" + b"\x03org\0" + bytes.fromhex("00010001")
)
ADDRESSES = [ip_address("192.0.2.1"), ip_address("2001:db8::1"), ip_address("192.0.2.2")]


def code_of(data: bytes) -> str | None:
    """What its sender is told, None for nothing; the reply keeps the identifier."""
    with pytest.raises(BadMessage) as bad:
        read_query(data)
    if not bad.value.reply:
        return None
    return Read(bad.value.reply).code


def test_a_query_is_read_and_its_reply_keeps_identifier_and_capitals() -> None:
    query = read_query(GOLDEN)
    assert (query.name, query.type, query.type_text) == ("ExAmple.org", 1, "A")
    reply = query.reply("udp", answer=query.addresses(ADDRESSES, 60))
    # Head: QR RD RA, one question, two answers. Question as it came. Answers: pointer to it, A IN, 60 s, four bytes.
    expected = bytes.fromhex("1234 8180 0001 0002 0000 0000") + GOLDEN[12:]
    for last in (1, 2):
        expected += bytes.fromhex("c00c 0001 0001 0000003c 0004 c00002") + bytes([last])
    assert reply == expected


def test_only_the_family_that_was_asked_for_is_told() -> None:
    query = read_query(ask("example.org", "AAAA"))
    assert Read(query.reply("udp", answer=query.addresses(ADDRESSES, 60))).data == ["2001:db8::1"]
    assert Read(query.reply("udp", answer=query.addresses(ADDRESSES[:1], 60))).code == "NOERROR"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", None),
        (GOLDEN[:11], None),
        (GOLDEN[:2] + b"\x81\x80" + GOLDEN[4:], None),  # an answer
        (GOLDEN[:12], "FORMERR"),
        (GOLDEN[:-1], "FORMERR"),
        (GOLDEN + b"\0", "FORMERR"),  # more than it says
        (GOLDEN[:4] + b"\0\0" + GOLDEN[6:], "FORMERR"),
        (GOLDEN[:4] + b"\0\2" + GOLDEN[6:] + GOLDEN[12:], "FORMERR"),
        (GOLDEN[:6] + b"\0\1" + GOLDEN[8:], "FORMERR"),
        (GOLDEN[:10] + b"\xff\xff" + GOLDEN[12:], "FORMERR"),
        (GOLDEN[:2] + b"\x29\x00" + GOLDEN[4:], "NOTIMP"),  # UPDATE
        (GOLDEN[:2] + b"\x10\x00" + GOLDEN[4:], "NOTIMP"),  # STATUS
        (GOLDEN[:-1] + b"\3", "REFUSED"),  # CHAOS
        (GOLDEN[:-1] + b"\xff", "REFUSED"),  # any class
        (GOLDEN[:12] + b"\xc0\x0c\0\1\0\1", "FORMERR"),  # a name that points at itself
        (GOLDEN[:12] + b"\xc0\x02\0\1\0\1", "FORMERR"),  # into the head
        (GOLDEN[:12] + b"\1a\xc0\x0c\0\1\0\1", "FORMERR"),  # in circles
        (GOLDEN[:12] + b"\x40a\0\0\1\0\1", "FORMERR"),  # a kind of label that nobody knows
        (GOLDEN[:12] + b"\x3fa" * 10, "FORMERR"),
        (GOLDEN[:12] + (b"\x3f" + b"a" * 63) * 4 + b"\0\0\1\0\1", "FORMERR"),  # a name of 257 bytes
        (GOLDEN + bytes(2000), "FORMERR"),
    ],
)
def test_what_is_no_query_is_told_so_or_nothing(data: bytes, code: str | None) -> None:
    assert code_of(data) == code


def test_a_later_edns_is_told_which_one_is_spoken() -> None:
    assert (
        code_of(GOLDEN[:10] + b"\0\1" + GOLDEN[12:] + bytes.fromhex("00 0029 04d0 00 01 0000 0000"))
        == "BADVERS"
    )
    twice = bytes.fromhex("00 0029 04d0 00 00 0000 0000") * 2
    assert code_of(GOLDEN[:10] + b"\0\2" + GOLDEN[12:] + twice) == "FORMERR"


def test_a_query_that_is_signed_is_not_taken_for_one_that_is_not() -> None:
    message = dns.message.make_query("example.org", "A", id=ID)
    message.use_tsig(dns.tsigkeyring.from_text({"key.": "c2VjcmV0"}))
    assert code_of(message.to_wire()) == "FORMERR"


@given(st.binary(max_size=80), st.integers(0, 30), st.integers(0, 3))
def test_nothing_else_is_ever_raised(data: bytes, at: int, cut: int) -> None:
    refused: list[bytes] = []
    for tried in (data, GOLDEN[:at] + data, GOLDEN[: len(GOLDEN) - cut] + data):
        try:
            query = read_query(tried)
        except BadMessage as bad:
            refused.append(bad.reply)
        else:
            assert len(query.reply("udp")) <= 512
    assert all(len(reply) in (0, 12) or Read(reply).size <= 512 for reply in refused)


def many(query: Query, count: int) -> bytes:
    return query.reply("udp", answer=query.addresses([ip_address(f"192.0.2.{n}") for n in range(count)], 60))


def test_a_datagram_is_no_longer_than_its_sender_takes() -> None:
    plain = read_query(ask("example.org"))
    assert not Read(many(plain, 20)).truncated
    cut = Read(many(plain, 64))
    assert (cut.truncated, cut.data) == (True, [])
    assert cut.size <= 512
    assert not Read(many(read_query(ask("example.org", edns=True)), 64)).truncated
    assert Read(many(read_query(ask("example.org", edns=True, payload=900)), 64)).truncated
    greedy = read_query(ask("example.org", edns=True, payload=65_535))
    assert Read(many(greedy, 100)).truncated
    assert not Read(many(read_query(ask("example.org", edns=True, payload=0)), 20)).truncated
    whole = plain.reply("tcp", answer=plain.addresses([ip_address(f"192.0.2.{n}") for n in range(64)], 60))
    assert len(Read(whole).data) == 64


def test_an_extended_error_is_for_who_understands_it() -> None:
    why = Extended(15, 'rule_deny: "no\nmail"')
    for edns, extended in ((True, (15, 'rule_deny: "no\\x0amail"')), (False, None)):
        reply = Read(read_query(ask("example.org", edns=edns)).reply("udp", rcode=NXDOMAIN, extended=why))
        assert (reply.code, reply.extended) == ("NXDOMAIN", extended)
    long = read_query(ask(".".join(["a" * 63] * 3 + ["b" * 61]), edns=True, payload=512))
    assert len(long.reply("udp", rcode=NXDOMAIN, extended=Extended(15, "\u2603" * 500))) <= 512


@pytest.mark.parametrize("address", ["192.0.2.7", "2001:db8::1"])
def test_an_address_is_read_from_a_reversed_name(address: str) -> None:
    name = dns.reversename.from_address(address).to_text()
    assert read_query(ask(name.upper(), "PTR")).reversed_address() == ip_address(address)


@pytest.mark.parametrize(
    "name",
    [
        *("2.0.192.in-addr.arpa", "256.2.0.192.in-addr.arpa", "x.7.2.0.192.in-addr.arpa", "in-addr.arpa"),
        *("1.0.0.0.ip6.arpa", "g." + "0." * 31 + "ip6.arpa", "7.2.0.192.example", "."),
    ],
)
def test_a_part_of_an_address_is_none(name: str) -> None:
    assert read_query(ask(name, "PTR")).reversed_address() is None


def test_what_an_address_is_called_is_told_only_if_it_is_a_name() -> None:
    query = read_query(ask("7.2.0.192.in-addr.arpa", "PTR"))
    found = query.names(["Host.example", "a b", "x" * 70, "", "192.0.2.1", "..", "\u2603"], 60)
    assert Read(query.reply("udp", answer=found)).data == ["host.example."]


def test_a_question_of_ours_has_nothing_of_the_clients_but_the_name() -> None:
    query = read_query(ask("ExAmple.org", "MX", edns=True, payload=4096))
    question = query.question()
    assert b"\7example\3org\0" in question.wire
    assert question.wire[12 : question.size].endswith(b"\0\x0f\0\1")
    asked = dns.message.from_wire(question.wire)
    assert (asked.payload, asked.ednsflags, asked.options) == (1232, 0, ())


def said(question: str, *records: str, rcode: str = "NOERROR", authority: tuple[str, ...] = ()) -> bytes:
    reply = dns.message.make_response(dns.message.from_wire(ask(question, "MX")))
    reply.set_rcode(dns.rcode.from_text(rcode))
    for section, texts in ((reply.answer, records), (reply.authority, authority)):
        section.extend(dns.rrset.from_text(*text.split(" ", 4)) for text in texts)  # type: ignore[arg-type]
    return reply.to_wire()


def test_of_what_a_name_server_says_only_what_was_asked_for_is_passed_on() -> None:
    query = read_query(ask("Example.org", "MX"))
    data = said(
        "example.org",
        "example.org. 9999 IN CNAME mail.example.org.",
        "mail.example.org. 30 IN MX 10 mx.example.org.",
        "mx.example.org. 30 IN A 192.0.2.1",
        authority=("example.org. 30 IN NS ns.example.org.", "example.org. 999 IN SOA a. b. 1 2 3 4 5"),
    )
    reply = Read(query.passed_on(data, "udp", 60))
    assert reply.data == ["mail.example.org.", "10 mx.example.org."]
    assert [rrset.ttl for rrset in reply.message.answer] == [60, 30]
    assert [rrset.rdtype.name for rrset in reply.message.authority] == ["SOA"]
    assert reply.message.question[0].name.to_text() == "Example.org."
    assert Read(query.passed_on(said("example.org", rcode="NXDOMAIN"), "udp", 60)).code == "NXDOMAIN"


def test_an_answer_that_cannot_be_used_is_not_passed_on() -> None:
    query = read_query(ask("example.org", "MX"))
    good = said("example.org", "example.org. 30 IN MX 10 mx.example.org.")
    for cut in range(len(good)):
        with pytest.raises(BadMessage):
            query.passed_on(good[:cut], "udp", 60)
    with pytest.raises(BadMessage, match="too many"):
        query.passed_on(good[:6] + b"\xff\xff" + good[8:], "udp", 60)
    with pytest.raises(BadMessage, match="answered 6"):
        query.passed_on(said("example.org", rcode="YXDOMAIN"), "udp", 60)


def test_a_refusal_without_a_message_is_a_head() -> None:
    reply = Read(refusal(GOLDEN, 5))
    assert (reply.code, reply.size, reply.message.flags & dns.flags.RD) == ("REFUSED", 12, dns.flags.RD)


def test_only_answers_are_passed_to_who_asked_for_them() -> None:
    question = read_query(ask("example.org", "TXT")).question()
    head = question.wire[:2] + b"\x81\x80\0\1" + bytes(6)
    assert answers(head + question.wire[12 : question.size], question)
    assert 16 in PASSED_ON_TYPES
