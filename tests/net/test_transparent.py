"""Connecting from addresses that are not ours: the right to it, and what it looks like without."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from doorward.net.transparent import Borrowed, why_not

SOURCE: Final = Path(__file__).parents[2] / "src"
ASK: Final = "from doorward.net.transparent import why_not; print(why_not(4), why_not(6), sep=';')"
BORROW: Final = """
import socket
from doorward.net.reservation import bind_as_source
from doorward.net.transparent import Borrowed
for family, address in ((socket.AF_INET, "192.0.2.7"), (socket.AF_INET6, "2001:db8::7")):
    with socket.socket(family) as sock:
        bind_as_source(sock, Borrowed(address))
        print(sock.getsockname()[:2])
"""


def _python(program: str, *before: str) -> str:
    """What a program prints that runs as somebody else."""
    done = subprocess.run(
        [*before, sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
        env={"PYTHONPATH": str(SOURCE)},
    )
    if done.returncode:
        pytest.skip(f"no namespaces here: {done.stderr.strip()[-200:]}")
    return done.stdout.strip()


def test_without_the_right_the_kernels_reason_is_told() -> None:
    assert _python(ASK, "unshare", "-U") == "Operation not permitted;Operation not permitted"


def test_with_it_a_socket_may_have_an_address_that_is_nobodys_here() -> None:
    assert _python(ASK, "unshare", "-Urn") == ";"
    assert _python(BORROW, "unshare", "-Urn") == "('192.0.2.7', 0)\n('2001:db8::7', 0)"


def test_what_is_borrowed_is_a_name_like_any_other() -> None:
    assert Borrowed("192.0.2.7") == ("192.0.2.7", 0)
    assert isinstance(why_not(4), str)


def test_datagrams_may_come_from_there_too() -> None:
    borrow = """
import os
from doorward.net.transparent import borrowed_datagrams
for address in ("192.0.2.7", "2001:db8::7"):
    with borrowed_datagrams(address) as sock:
        print(sock.getsockname()[0], sock.getsockname()[1] != 0, os.get_blocking(sock.fileno()))
"""
    assert _python(borrow, "unshare", "-Urn") == "192.0.2.7 True False\n2001:db8::7 True False"
    refused = """
from doorward.api.errors import LinkError
from doorward.net.transparent import borrowed_datagrams
try:
    borrowed_datagrams("192.0.2.7")
except LinkError as error:
    print(error.detail)
"""
    assert _python(refused, "unshare", "-U") == "Operation not permitted"
