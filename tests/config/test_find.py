from __future__ import annotations

from pathlib import Path

import pytest

from doorward.config import find
from doorward.config.find import PolicyNotFound, find_policy


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The usual places, first to last, all of them empty."""
    for name in ("here", "configured/doorward", "system"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.delenv("DOORWARD_POLICY", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "configured"))
    monkeypatch.setattr(find, "SYSTEM_DIRECTORY", tmp_path / "system")
    return [tmp_path / name / "doorward.toml" for name in ("here", "configured/doorward", "system")]


def test_the_nearest_policy_is_found(places: list[Path]) -> None:
    for place in reversed(places):
        place.write_text("")
        assert find_policy() == place


def test_when_there_is_none_the_message_lists_where_it_looked(places: list[Path]) -> None:
    with pytest.raises(PolicyNotFound) as raised:
        find_policy()
    assert raised.value.looked == tuple(places)
    assert all(str(place) in str(raised.value) for place in places)


def test_a_named_policy_wins_and_is_never_replaced(
    places: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    places[0].write_text("")
    places[2].write_text("")
    monkeypatch.setenv("DOORWARD_POLICY", str(places[2]))
    assert find_policy() == places[2]
    assert find_policy(places[0]) == places[0]
    with pytest.raises(PolicyNotFound, match="--policy"):
        find_policy(Path("none.toml"))
    places[2].unlink()
    with pytest.raises(PolicyNotFound, match="DOORWARD_POLICY"):
        find_policy()


def test_a_relative_configuration_directory_is_ignored(
    places: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", "configured")
    monkeypatch.setenv("HOME", str(places[0].parent))
    home = places[0].parent / ".config/doorward/doorward.toml"
    home.parent.mkdir(parents=True)
    home.write_text("")
    assert find_policy() == home


def test_without_a_home_the_machine_s_policy_is_still_found(
    places: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.delenv("HOME")
    places[2].write_text("")
    assert find_policy() == places[2]
