"""Verbs, and what the filter answers in place of the server."""

from __future__ import annotations

from typing import Final

from doorward.wire.ftp import Reply

# Each uses up one data connection (RFC 959 section 4.1.3, RFC 3659 section 7).
TRANSFERS: Final = frozenset({"RETR", "STOR", "STOU", "APPE", "LIST", "NLST", "MLSD"})

# Others that name an address, or have the server name one, in words that are not read here: RFC 1639 and two that
# servers invented for transfers between servers.
NOT_READ: Final = frozenset({"LPRT", "LPSV", "CPSV", "SPSV"})

# What a client may do that is only to read. Whatever is not here might write.
READING: Final = frozenset(
    {
        *("USER", "PASS", "ACCT", "REIN", "QUIT", "HOST", "AUTH", "PBSZ", "PROT"),
        *("CWD", "XCWD", "CDUP", "XCUP", "PWD", "XPWD"),
        *("PORT", "PASV", "EPRT", "EPSV", "TYPE", "STRU", "MODE", "OPTS", "LANG", "CLNT", "CSID"),
        *("RETR", "REST", "RANG", "ABOR", "ALLO", "LIST", "NLST", "MLSD", "MLST", "STAT", "SIZE", "MDTM"),
        *("HASH", "MD5", "XCRC", "XMD5", "XSHA", "XSHA1", "XSHA256", "XSHA512", "AVBL", "THMB"),
        *("SYST", "FEAT", "HELP", "NOOP"),
    }
)

# Names of security mechanisms for AUTH that are TLS (RFC 4217 section 3, and older ones).
TLS_NAMES: Final = frozenset({b"TLS", b"TLS-C", b"SSL", b"TLS-P"})

# Codes that make a client open a connection or change the language: (verbs that may be answered with it).
ONLY_FOR: Final = {
    227: frozenset({"PASV"}),
    228: frozenset({"LPSV"}),
    229: frozenset({"EPSV"}),
    234: frozenset({"AUTH"}),
    334: frozenset({"AUTH"}),
}


def refusal(code: int, reason: str) -> Reply:
    """What the client is told in place of what it wanted; the reason is the one on record."""
    return Reply(code, (b"Refused by the firewall: " + reason.encode("ascii"),))
