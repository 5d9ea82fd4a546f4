from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.cli.child import environment
from tests.cli.conftest import Run


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_for_each_shell_calls_us(run: Run, shell: str) -> None:
    result = run("completion", shell)
    assert result.exit_code == 0
    assert f"_DOORWARD_COMPLETE={shell}_complete" in result.stdout
    program = shutil.which(shell)
    if program is not None:
        subprocess.run([program, "-n"], input=result.stdout, text=True, check=True)


def test_words_are_completed(tmp_path: Path) -> None:
    words = environment(_DOORWARD_COMPLETE="bash_complete", COMP_WORDS="doorward ex", COMP_CWORD="1")
    code = "from doorward.cli.main import main; import sys; sys.argv[0] = 'doorward'; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], env=words, cwd=tmp_path, text=True, capture_output=True, check=False
    )
    assert done.stdout.split() == ["plain,explain"]
