from __future__ import annotations

from pathlib import Path

import pytest
from tests.tools.trees import plant

from tools import fuzz_all

GOOD = """\
    import sys
    import helpers, doorward_like
    print("a line before")
    print(" ".join(sys.argv[1:]))
    """


def planted(root: Path, **fuzzers: str) -> Path:
    plant(root, {f"fuzz/fuzz_{name}.py": text for name, text in fuzzers.items()})
    return plant(root, {"src/doorward_like.py": "", "helpers.py": "", "fuzz/seeds.py": "raise SystemExit(1)"})


def test_a_good_fuzzer_sees_the_source_and_says_its_last_line(tmp_path: Path) -> None:
    root = planted(tmp_path, good=GOOD)
    (fuzzer,) = fuzz_all.fuzzers(root)
    assert fuzz_all.run(fuzzer, root, seconds=0.5, seed=7) == ("fuzz_good", True, "--seconds 0.5 --seed 7")


def test_a_failed_fuzzer_says_everything(tmp_path: Path) -> None:
    root = planted(tmp_path, bad="print('input: 0x00')\nraise ValueError('broken promise')\n")
    outcome = fuzz_all.run(root / "fuzz/fuzz_bad.py", root, seconds=0.5, seed=7)
    assert not outcome.is_good
    assert outcome.said.startswith("exit status 1\ninput: 0x00\nTraceback")
    assert outcome.said.endswith("ValueError: broken promise")


def test_a_fuzzer_that_hangs_is_killed_and_has_failed(tmp_path: Path) -> None:
    root = planted(tmp_path, endless="import threading\nthreading.Event().wait()\n")
    outcome = fuzz_all.run(root / "fuzz/fuzz_endless.py", root, seconds=0, seed=7, grace_s=0.2)
    assert not outcome.is_good
    assert "makes it hang" in outcome.said


def test_all_are_run_and_one_failure_is_the_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fuzz_all, "REPOSITORY", planted(tmp_path, bad="raise SystemExit(3)\n", good=GOOD))
    assert fuzz_all.main(["--seconds", "0"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line[:6] for line in lines[:1]] == ["FAILED"]
    assert "ok     fuzz_good: --seconds 0.0 --seed 1" in lines
    (tmp_path / "fuzz/fuzz_bad.py").unlink()
    assert fuzz_all.main(["--seconds", "0"]) == 0


def test_no_fuzzer_at_all_is_a_failure_not_a_success(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz_all, "REPOSITORY", tmp_path)
    assert fuzz_all.main([]) == 1
