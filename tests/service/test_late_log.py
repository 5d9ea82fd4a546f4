"""A log that is made when somebody says something."""

from __future__ import annotations

import subprocess
import sys

import pytest

from doorward.service.late_log import LateLog


def test_warnings_and_errors_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    log = LateLog()
    log.debug("not this")
    log.info("nor this", a=1)
    log.warning("this", number=1)
    log.error("and this")
    told = capsys.readouterr().err
    assert "this" in told
    assert "and this" in told
    assert "not this" not in told
    assert "nor this" not in told


def test_a_launch_does_not_pay_for_a_log_that_says_nothing() -> None:
    code = "import sys, doorward.service.run_program, doorward.service.late_log; print('structlog' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=15, check=True
    )
    assert done.stdout == "False\n"
