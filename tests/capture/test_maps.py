"""Who is who inside."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from doorward.capture import maps


def test_everybody_keeps_the_number_they_are_known_by() -> None:
    assert maps.mirrored("         0     100000      65536\n") == "0 0 65536\n"
    assert maps.mirrored("0 1000 1\n1 100000 65536\n") == "0 0 1\n1 1 65536\n"


def test_who_may_not_map_others_maps_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[tuple[str, str]] = []

    def write(path: Path, text: str) -> None:
        if not written and path.name == "uid_map" and text.split()[-1] != "1":
            raise PermissionError
        written.append((path.name, text))

    monkeypatch.setattr(maps, "_write", write)
    monkeypatch.setattr(maps, "mirrored", lambda own: "0 0 4294967295\n")
    maps.write_maps(os.getpid())
    user, group = os.geteuid(), os.getegid()
    assert written == [
        ("uid_map", f"{user} {user} 1\n"),
        ("setgroups", "deny"),
        ("gid_map", f"{group} {group} 1\n"),
    ]


def test_a_map_goes_to_the_kernel_in_one_piece(tmp_path: Path) -> None:
    path = tmp_path / "map"
    path.write_text("")
    maps._write(path, "1 1 1\n")
    assert path.read_text() == "1 1 1\n"
