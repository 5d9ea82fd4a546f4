"""Queries as clients send them, and replies as clients read them."""

from __future__ import annotations

import dns.edns
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype

ID = 0x1234


def ask(name: str, kind: str = "A", *, edns: bool = False, payload: int = 1232) -> bytes:
    """A query in wire form; the name as it is written."""
    message = dns.message.make_query(name, kind, use_edns=0 if edns else False, payload=payload, id=ID)
    return message.to_wire()


class Read:
    """A reply, taken apart."""

    def __init__(self, wire: bytes) -> None:
        self.size = len(wire)
        self.message = dns.message.from_wire(wire)
        assert self.message.id == ID
        assert self.message.flags & dns.flags.QR
        assert self.message.flags & dns.flags.RA

    @property
    def code(self) -> str:
        return dns.rcode.to_text(self.message.rcode())

    @property
    def data(self) -> list[str]:
        """The answer's data in their order, in lower case: of names shared with the question capitals are kept."""
        return [rdata.to_text().lower() for rrset in self.message.answer for rdata in rrset]

    @property
    def truncated(self) -> bool:
        return bool(self.message.flags & dns.flags.TC)

    @property
    def extended(self) -> tuple[int, str] | None:
        for option in self.message.options:
            if isinstance(option, dns.edns.EDEOption):
                return int(option.code), option.text or ""
        return None
