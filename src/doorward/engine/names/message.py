"""DNS messages: hostile bytes to a `Query`, and answers back to bytes. The one place that knows dnspython.

Nothing but `BadMessage` comes out of here, whatever came in; the library parses only what has passed the look at the
head, and no more than a few hundred bytes of it. A query has exactly one question, of class IN, its name written out;
who sends anything else is told so (RFC 1035 section 4.1.1), and who sends answers is told nothing, so that two servers
never talk to each other. Replies keep identifier and the name as it was written, capitals too.

Sources: RFC 1035; RFC 6891 (EDNS0); RFC 8914 (extended errors); RFC 9619 (one question).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from ipaddress import ip_address
from typing import Final, Literal, NamedTuple, TypeAlias

import dns.edns
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.reversename
import dns.rrset

from doorward.net.nameservers import Question
from doorward.policy.address import BadHost, canonical, parse_host
from doorward.policy.model import IPAddress
from doorward.wire.printable import printable

Way: TypeAlias = Literal["udp", "tcp"]

# A name of 255 bytes, its question and the options that clients send; RFC 9715 asks who wants more to use a stream.
QUERY_BYTES_MAX: Final = 1232
HEAD_BYTES: Final = 12
# What a datagram may be without EDNS0 (RFC 1035 section 4.2.1), and with: what passes every network in one piece.
PLAIN_BYTES_MAX: Final = 512
DATAGRAM_BYTES_MAX: Final = 1232
STREAM_BYTES_MAX: Final = 65_535
# Records of a name server's answer: parsing costs a tenth of a millisecond each.
RECORDS_MAX: Final = 256
# OPT, and a signature that we cannot check; counted before anything is parsed.
_ADDITIONAL_MAX: Final = 2
# With the longest question it still fits the smallest datagram.
_EDE_TEXT_BYTES_MAX: Final = 200

_T = dns.rdatatype
PTR: Final = int(_T.PTR)
ADDRESS_TYPES: Final = frozenset(map(int, (_T.A, _T.AAAA)))
EMPTY_TYPES: Final = frozenset(map(int, (_T.HTTPS, _T.SVCB)))
# Without addresses in them: mail, services, keys of servers, what proves to whom a zone belongs.
PASSED_ON_TYPES: Final = frozenset(
    map(int, (_T.MX, _T.TXT, _T.SRV, _T.NS, _T.SOA, _T.CNAME, _T.CAA, _T.NAPTR, _T.URI, _T.TLSA, _T.SSHFP))
)

FORMERR: Final = dns.rcode.FORMERR
SERVFAIL: Final = dns.rcode.SERVFAIL
NXDOMAIN: Final = dns.rcode.NXDOMAIN
NOTIMP: Final = dns.rcode.NOTIMP
REFUSED: Final = dns.rcode.REFUSED
NOERROR: Final = dns.rcode.NOERROR

# RFC 8914 section 4.
EDE_NOT_READY: Final = 14
EDE_BLOCKED: Final = 15
EDE_PROHIBITED: Final = 18
EDE_NOT_SUPPORTED: Final = 21
EDE_NO_AUTHORITY: Final = 22
EDE_NETWORK_ERROR: Final = 23


class BadMessage(Exception):
    """Not a message that can be used. `reply` is what its sender is to be sent, empty for nothing."""

    def __init__(self, detail: str, reply: bytes = b"") -> None:
        super().__init__(detail)
        self.reply = reply


class Extended(NamedTuple):
    """Why, for who understands it: the code of RFC 8914 and a sentence."""

    code: int
    text: str


class Query:
    """One question. `name` is text as the library writes it, without the final dot; the root is empty."""

    __slots__ = ("_message", "name", "type")

    def __init__(self, message: dns.message.Message) -> None:
        self._message = message
        asked = message.question[0]
        self.name: str = asked.name.to_text(omit_final_dot=True) if asked.name != dns.name.root else ""
        self.type: int = int(asked.rdtype)

    @property
    def type_text(self) -> str:
        """`A`, `MX`, …; `TYPE1234` where it has no name."""
        return dns.rdatatype.to_text(dns.rdatatype.RdataType.make(self.type))

    def reversed_address(self) -> IPAddress | None:
        """The address that a name under in-addr.arpa or ip6.arpa stands for, wholly written; None for other names."""
        try:
            text = dns.reversename.to_address(self._message.question[0].name)
        except (dns.exception.DNSException, ValueError):
            return None
        return _parsed_address(text)

    def reply(
        self,
        way: Way,
        *,
        rcode: int = NOERROR,
        answer: Sequence[dns.rrset.RRset] = (),
        authority: Sequence[dns.rrset.RRset] = (),
        extended: Extended | None = None,
    ) -> bytes:
        """In wire form. What does not fit a datagram is cut to its head, and says so (TC)."""
        message = dns.message.make_response(
            self._message, recursion_available=True, our_payload=DATAGRAM_BYTES_MAX
        )
        message.set_rcode(dns.rcode.Rcode(rcode))
        message.answer, message.authority = list(answer), list(authority)
        if extended is not None and self._message.edns >= 0:
            text = printable(extended.text, _EDE_TEXT_BYTES_MAX).encode()[:_EDE_TEXT_BYTES_MAX]
            option = dns.edns.EDEOption(dns.edns.EDECode(extended.code), text.decode(errors="ignore"))
            message.use_edns(0, payload=DATAGRAM_BYTES_MAX, options=[option])
        try:
            return message.to_wire(max_size=self._bytes_max(way), want_shuffle=False)
        except dns.exception.TooBig:
            message.answer, message.authority = [], []
            message.flags |= dns.flags.TC
            if self._message.edns >= 0:
                message.use_edns(0, payload=DATAGRAM_BYTES_MAX)
            return message.to_wire(max_size=STREAM_BYTES_MAX)

    def _bytes_max(self, way: Way) -> int:
        if way == "tcp":
            return STREAM_BYTES_MAX
        if self._message.edns < 0:
            return PLAIN_BYTES_MAX
        return max(PLAIN_BYTES_MAX, min(self._message.payload, DATAGRAM_BYTES_MAX))

    def of_its_type(self, found: Iterable[IPAddress]) -> list[IPAddress]:
        """Those of the family that was asked for."""
        version = {_T.A: 4, _T.AAAA: 6}.get(_T.RdataType.make(self.type))
        return [address for address in found if address.version == version]

    def addresses(self, found: Iterable[IPAddress], ttl_s: int) -> list[dns.rrset.RRset]:
        """Those of the family that was asked for, A or AAAA, as the answer's records."""
        return self._records([str(address) for address in self.of_its_type(found)], ttl_s)

    def names(self, found: Iterable[str], ttl_s: int) -> list[dns.rrset.RRset]:
        """As PTR records; what is no name is left out."""
        texts = []
        for text in found:
            try:
                name = parse_host(text)
            except BadHost:
                continue
            if isinstance(name, str):
                texts.append(f"{name}.")
        return self._records(texts, ttl_s)

    def _records(self, texts: Sequence[str], ttl_s: int) -> list[dns.rrset.RRset]:
        if not texts:
            return []
        asked = self._message.question[0]
        return [dns.rrset.from_text_list(asked.name, ttl_s, asked.rdclass, asked.rdtype, texts)]

    def question(self) -> Question:
        """The same question as one of ours, for a name server: lower case, nothing of the client's in it."""
        asked = self._message.question[0]
        name = asked.name.canonicalize()
        message = dns.message.make_query(
            name, asked.rdtype, use_edns=0, payload=DATAGRAM_BYTES_MAX, want_dnssec=False
        )
        return Question(message.to_wire(), HEAD_BYTES + len(_wire(name)) + 4)

    def passed_on(self, data: bytes, way: Way, ttl_max_s: int) -> bytes:
        """The reply that says what a name server said. Raises BadMessage.

        Of its answer only records of the type that was asked for, and aliases; of the rest only the SOA that tells for
        how long a no holds. So nobody is given an address that was not asked for.
        """
        said = _answer(data)
        kept = {self.type, int(dns.rdatatype.CNAME), int(dns.rdatatype.DNAME)}
        answer = [_short(rrset, ttl_max_s) for rrset in said.answer if int(rrset.rdtype) in kept]
        authority = [
            _short(rrset, ttl_max_s) for rrset in said.authority if rrset.rdtype == dns.rdatatype.SOA
        ]
        try:
            return self.reply(way, rcode=int(said.rcode()), answer=answer, authority=authority)
        except Exception as error:  # as for reading
            raise BadMessage(f"the answer cannot be written: {type(error).__name__}") from None


def read_query(data: bytes) -> Query:
    """The query in these bytes. Raises BadMessage, with the reply to be sent if there is one."""
    if len(data) < HEAD_BYTES or data[2] & 0x80:
        raise BadMessage("no query")
    if len(data) > QUERY_BYTES_MAX:
        raise BadMessage(
            f"a query of {len(data)} bytes, {QUERY_BYTES_MAX} are possible", refusal(data, FORMERR)
        )
    if data[2] & 0x78:
        raise BadMessage("not the operation QUERY", refusal(data, NOTIMP))
    questions, answers, authorities, additionals = struct.unpack_from("!4H", data, 4)
    if questions != 1 or answers or authorities > 1 or additionals > _ADDITIONAL_MAX:
        raise BadMessage("not one question and nothing else", refusal(data, FORMERR))
    try:
        message = dns.message.from_wire(data)
        asked = message.question[0]
        name = _wire(asked.name)
    except Exception as error:  # whatever the library makes of hostile bytes: the sender's mistake
        raise BadMessage(f"malformed: {type(error).__name__}", refusal(data, FORMERR)) from None
    if data[HEAD_BYTES : HEAD_BYTES + len(name)] != name:
        raise BadMessage("the question's name points elsewhere", refusal(data, FORMERR))
    if message.edns > 0:
        raise BadMessage("a later EDNS", _bad_version(message))
    if asked.rdclass != dns.rdataclass.IN:
        raise BadMessage("not of class IN", Query(message).reply("udp", rcode=REFUSED))
    return Query(message)


def refusal(data: bytes, rcode: int) -> bytes:
    """A head alone, for who sent this: at least the 12 bytes of one."""
    identifier, flags = struct.unpack_from("!2H", data)
    # Opcode and RD are given back; RA, since it is a resolver that speaks.
    return struct.pack("!6H", identifier, 0x8080 | flags & 0x7900 | rcode, 0, 0, 0, 0)


def _bad_version(message: dns.message.Message) -> bytes:
    """RFC 6891 section 6.1.3."""
    message.use_edns(0)  # what the reply is to be
    reply = dns.message.make_response(message, recursion_available=True, our_payload=DATAGRAM_BYTES_MAX)
    reply.set_rcode(dns.rcode.BADVERS)
    return reply.to_wire()


def _answer(data: bytes) -> dns.message.Message:
    """What a name server said. Raises BadMessage."""
    if len(data) < HEAD_BYTES or sum(struct.unpack_from("!3H", data, 6)) > RECORDS_MAX:
        raise BadMessage("too short or too many records")
    try:
        message = dns.message.from_wire(data, ignore_trailing=True)
        rcode = message.rcode()
    except Exception as error:  # as in `read_query`
        raise BadMessage(f"malformed: {type(error).__name__}") from None
    if rcode not in (NOERROR, NXDOMAIN, SERVFAIL, REFUSED, NOTIMP):
        raise BadMessage(f"the name server answered {rcode}")
    return message


def _wire(name: dns.name.Name) -> bytes:
    wire = name.to_wire()
    assert wire is not None, "it is None only where it is written into a file"
    return wire


def _short(rrset: dns.rrset.RRset, ttl_max_s: int) -> dns.rrset.RRset:
    rrset.ttl = min(rrset.ttl, ttl_max_s)
    return rrset


def _parsed_address(text: str) -> IPAddress | None:
    """The address in a text that the library wrote."""
    try:
        return canonical(ip_address(text))
    except ValueError:
        return None
