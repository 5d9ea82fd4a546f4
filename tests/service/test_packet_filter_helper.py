"""The helper's process: it starts with one right, and says what is missing. Its work: tests/end_to_end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.end_to_end.wires import unshare_flags, why_not

from doorward.packetfilter.nft import NftRefused
from doorward.service import packet_filter_helper

COMMAND = [sys.executable, "-m", "doorward", "packet-filter", "--socket"]


@pytest.mark.skipif(bool(why_not()), reason=why_not())
def test_it_keeps_one_capability_and_ends_in_order(tmp_path: Path) -> None:
    command = ["unshare", unshare_flags(), *COMMAND, str(tmp_path / "s"), "--user", str(os.getuid())]
    if unshare_flags() != "-n":
        command[-1] = "0"
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as helper:
        assert helper.stderr is not None
        assert "answers user" in helper.stderr.readline()
        status = Path(f"/proc/{helper.pid}/status").read_text()
        for name in ("CapEff", "CapPrm", "CapBnd"):
            assert f"{name}:\t{1 << 12:016x}" in status, name
        assert "NoNewPrivs:\t1" in status
        helper.send_signal(signal.SIGTERM)
        assert helper.wait(10) == 0
    assert not (tmp_path / "s").exists()


def test_without_the_right_that_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Nobody:
        def run(self, orders: object) -> list[object]:
            raise NftRefused("Operation not permitted")

    monkeypatch.setattr(packet_filter_helper, "nft", Nobody)
    with pytest.raises(NftRefused, match="CAP_NET_ADMIN"):
        packet_filter_helper.serve(tmp_path / "s", os.getuid(), print)
    assert not (tmp_path / "s").exists()
