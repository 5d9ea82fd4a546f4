"""Verbs."""

from __future__ import annotations

from doorward.filters.ftp.words import NOT_READ, ONLY_FOR, READING, TRANSFERS, refusal

WRITING = {"STOR", "STOU", "APPE", "DELE", "RNFR", "RNTO", "RMD", "XRMD", "MKD", "XMKD", "SITE", "MFMT", "MFCT", "MFF",
           "SMNT", "COMB", "XCOP"}  # fmt: skip


def test_nothing_that_writes_counts_as_reading() -> None:
    assert not READING & WRITING
    assert not READING & NOT_READ


def test_what_reads_a_file_or_a_directory_counts_as_reading() -> None:
    assert TRANSFERS - WRITING <= READING


def test_a_refusal_names_its_reason() -> None:
    assert refusal(550, "ftp_read_only").wire == b"550 Refused by the firewall: ftp_read_only\r\n"


def test_every_reply_that_opens_a_connection_has_its_verb() -> None:
    assert ONLY_FOR[227] == {"PASV"}
    assert ONLY_FOR[229] == {"EPSV"}
