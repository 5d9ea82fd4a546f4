"""System calls that Python lacks; those that take something away are tried in a child."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from tests.capture.inside import needs_namespaces

from doorward.capture import kernel


def child(code: str, **more: object) -> str:
    """What a Python that may do as it likes with itself has printed."""
    done = subprocess.run(
        [sys.executable, "-c", "from doorward.capture import kernel\nimport os\n" + code],
        capture_output=True, text=True, timeout=10, check=True, **more,  # type: ignore[call-overload]
    )  # fmt: skip
    printed: str = done.stdout
    return printed.strip()


def test_what_the_kernel_refuses_is_an_error() -> None:
    with pytest.raises(OSError, match="Bad file descriptor"):
        kernel.enter(-1, kernel.NEW_NET)


@needs_namespaces
def test_all_capabilities_are_given_up_for_good() -> None:
    told = child(
        "kernel.unshare(kernel.NEW_USER); kernel.limit_capabilities(frozenset())\n"
        "print(*[l.split()[1] for l in open('/proc/self/status') if l.startswith('Cap')])"
    )
    assert {int(word, 16) for word in told.split()} == {0}


@needs_namespaces
def test_those_that_are_kept_are_the_only_ones() -> None:
    told = child(
        "kernel.unshare(kernel.NEW_USER); kernel.limit_capabilities(frozenset({5, 33}))\n"
        "print(*[l.split()[1] for l in open('/proc/self/status') if l.startswith(('CapPrm', 'CapBnd', 'CapEff'))])"
    )
    assert {int(word, 16) for word in told.split()} == {1 << 5 | 1 << 33}


def test_a_hidden_process_belongs_to_nobody_who_asks() -> None:
    told = child("kernel.hide(); print(os.stat('/proc/self/mem').st_uid)")
    assert told == "0"


def test_no_new_privileges_is_kept() -> None:
    told = child(
        "kernel.no_new_privileges(); print([l for l in open('/proc/self/status') if 'NoNewPrivs' in l])"
    )
    assert "\\t1" in told


def test_every_descriptor_from_one_on_is_closed() -> None:
    reading, writing = os.pipe()
    try:
        told = child(
            "kernel.close_from(3); print(sorted(int(n) for n in os.listdir('/proc/self/fd'))[:3])\n"
            f"try: os.fstat({writing})\nexcept OSError as e: print(e.errno)",
            pass_fds=(writing,),
        )
        assert told == "[0, 1, 2]\n9"
    finally:
        os.close(reading)
        os.close(writing)
