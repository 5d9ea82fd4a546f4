"""A command's program is the one that the system would run, and it is known by where it really is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from doorward.capture.executable import Executable, find


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """In `one` there is `tool`, which may not be run, and in `two` one that may, with a link `t` to it."""
    for name, mode in (("one/tool", 0o644), ("two/tool", 0o755)):
        path = tmp_path / name
        path.parent.mkdir()
        path.write_text("#!/bin/sh\n")
        path.chmod(mode)
    (tmp_path / "two/t").symlink_to("tool")
    (tmp_path / "two/folder").mkdir()
    (tmp_path / "link").symlink_to("two")
    monkeypatch.chdir(tmp_path)
    return tmp_path.resolve()


def directories(programs: Path) -> list[str]:
    return [str(programs / "one"), str(programs / "two")]


def test_it_is_the_first_that_may_be_run(programs: Path) -> None:
    path = str(programs / "two/tool")
    assert find("tool", directories(programs)) == Executable(path, path, path)


def test_a_link_is_known_by_both_its_paths(programs: Path) -> None:
    there = str(programs / "two")
    assert find("t", directories(programs)) == Executable(f"{there}/t", f"{there}/t", f"{there}/tool")


@pytest.mark.parametrize(
    ("name", "program"),
    [
        ("two/tool", "two/tool"),
        ("./two/t", "two/t"),
        ("two/../two/tool", "two/tool"),
        ("link/../two/t", "two/t"),
    ],
)
def test_a_path_is_run_as_it_was_written_and_known_from_the_root(
    programs: Path, name: str, program: str
) -> None:
    found = find(name, directories(programs))
    assert found == Executable(name, str(programs / program), str(programs / "two/tool"))


def test_a_way_back_behind_a_link_is_not_taken_for_what_it_seems(programs: Path) -> None:
    (programs / "two/deep").mkdir()
    (programs / "short").symlink_to("two/deep")
    found = find("short/../tool", [])
    assert found is not None
    assert found.program == str(programs / "two/tool"), "and not tool beside short"


@pytest.mark.parametrize("name", ["", "nothing", "folder", "one/tool", "/nowhere/tool", "two"])
def test_what_cannot_be_run_is_not_found(programs: Path, name: str) -> None:
    assert find(name, directories(programs)) is None


def test_it_is_what_the_system_runs(programs: Path) -> None:
    (programs / "two/tool").write_text("#!/bin/sh\nexit 7\n")
    process = os.fork()
    if not process:
        os.environ["PATH"] = os.pathsep.join(directories(programs))
        try:
            os.execvp("tool", ["tool"])  # noqa: S606
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 7
