from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from tests.tools.trees import plant
from tools.tree import Breach, files, modules


def test_a_breach_reads_like_a_compilers_message() -> None:
    assert str(Breach("src/a.py", 3, "too long; split it")) == "src/a.py:3: too long; split it"


def test_without_git_everything_counts_but_what_is_built_hidden_or_recorded(tmp_path: Path) -> None:
    kept = ["README.md", "src/doorward/api/errors.py", "tools/venv.sh"]
    left_out = [
        ".venv/lib/a.py",
        ".mypy_cache/b.json",
        "src/doorward/__pycache__/c.pyc",
        "doorward.egg-info/PKG-INFO",
        "var/doorward.db",
        "dist/doorward.whl",
        "environment/pyvenv.cfg",
        "environment/bin/pip",
    ]
    plant(tmp_path, dict.fromkeys([*kept, *left_out], ""))
    assert files(tmp_path) == kept


def test_with_git_a_new_file_counts_before_it_is_added_and_an_ignored_or_deleted_one_does_not(
    tmp_path: Path,
) -> None:
    plant(
        tmp_path, {".gitignore": "made/\n", "a.py": "", "gone.py": "", "with space.py": "", "made/b.py": ""}
    )
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    subprocess.run(["git", "-C", tmp_path, "add", "a.py", "gone.py"], check=True)
    (tmp_path / "gone.py").unlink()
    assert files(tmp_path) == [".gitignore", "a.py", "with space.py"]


def test_a_checkout_that_git_refuses_to_read_is_walked(tmp_path: Path) -> None:
    plant(tmp_path, {".git/config": "[not\n", "a.py": ""})
    assert files(tmp_path) == ["a.py"]


def test_modules_come_parsed_in_order_and_a_broken_one_is_named(tmp_path: Path) -> None:
    plant(tmp_path, {"src/b.py": "x = 1\n", "src/a/c.py": "", "src/d.txt": "", "tests/e.py": ""})
    assert [module.path for module in modules(tmp_path, "src")] == ["src/a/c.py", "src/b.py"]
    plant(tmp_path, {"src/f.py": "x = = 1\n"})
    with pytest.raises(SyntaxError) as caught:
        list(modules(tmp_path, "src"))
    assert (caught.value.filename, caught.value.lineno) == ("src/f.py", 1)


def test_a_directory_that_is_not_there_holds_no_modules(tmp_path: Path) -> None:
    assert list(modules(tmp_path, "src")) == []
