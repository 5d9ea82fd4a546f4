"""Both ways to the kernel do the same; where there is none, that is said."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys

import pytest
from tests.end_to_end.wires import unshare_flags, why_not

from doorward.packetfilter import nft as module
from doorward.packetfilter.nft import Library, NftRefused, Program, nft

SCRIPT = """
from doorward.packetfilter.nft import Library, NftRefused, Program
from doorward.packetfilter.orders import REMOVE, load
from tests.packetfilter.tables import WEB, table_of
from doorward.packetfilter.writing import lay_out
for kind in (Library, Program):
    nft = kind()
    nft.run(load(lay_out(table_of(WEB))))
    names = [c["counter"]["name"] for c in nft.run([{"list": {"counters": None}}]) if "counter" in c]
    try:
        nft.run([{"add": {"rule": {"family": "inet", "table": "doorward", "chain": "none", "expr": []}}}])
    except NftRefused as error:
        print(kind.__name__, "up" in names, bool(str(error)), "\\n" in str(error))
"""


@pytest.mark.skipif(bool(why_not()), reason=why_not())
def test_library_and_program_do_the_same() -> None:
    done = subprocess.run(
        ["unshare", unshare_flags(), sys.executable, "-c", SCRIPT],
        capture_output=True, text=True, timeout=15, check=False,
    )  # fmt: skip
    assert done.stdout.splitlines() == ["Library True True False", "Program True True False"], done.stderr


def test_without_the_library_it_is_the_program_and_without_both_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def missing(name: str) -> None:
        raise OSError(f"{name} is not here")

    monkeypatch.setattr(ctypes, "CDLL", missing)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/sbin/{name}")
    assert isinstance(nft(), Program)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(NftRefused, match="libnftables1"):
        nft()
    with pytest.raises(OSError, match="is not here"):
        Library()


def test_a_program_that_fails_or_hangs_has_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PROGRAM", "/nonexistent/nft")
    with pytest.raises(NftRefused, match="No such file"):
        Program().run([])
    monkeypatch.setattr(module, "PROGRAM", "false")
    with pytest.raises(NftRefused, match="nft failed"):
        Program().run([])
