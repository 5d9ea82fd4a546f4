from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.entry.filters import TELL, WATCH

from doorward.api.filters import ApplicationFilter, ClientKind
from doorward.config.model import FilterSetting
from doorward.policy.model import PortRange, Protocols
from doorward.service import filters
from doorward.service.filters import AttachEach, FilterNotLoaded, LoadedFilter, load_filters

PROTOCOLS = Protocols({"http": (PortRange("tcp", 80, 80),)})
BAD_BEGINNING = """
from doorward.api import ApplicationFilter

class A(ApplicationFilter):
    def __init__(self, settings):
        raise KeyError("level")
"""
APPLICATION = TELL.format(version=1)


def setting(home: Path, text: str | bytes, name: str = "mine", **more: Any) -> FilterSetting:
    path = home / f"{name}.py"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return FilterSetting(name, str(path), **more)


def loaded(*settings: FilterSetting, kept: list[LoadedFilter] | None = None) -> list[LoadedFilter]:
    return load_filters(settings, PROTOCOLS, kept or ())


def refused(*settings: FilterSetting) -> str:
    with pytest.raises(FilterNotLoaded) as caught:
        loaded(*settings)
    return str(caught.value)


def test_a_file_with_an_application_filter_gives_that_filter_its_settings(tmp_path: Path) -> None:
    (one,) = loaded(setting(tmp_path, APPLICATION, settings={"a": 1}))
    assert type(one.entry.application_filter).__name__ == "Tell"
    assert one.entry.application_filter.settings == {"a": 1}


def test_a_file_with_a_data_filter_alone_is_attached_to_each_connection(tmp_path: Path) -> None:
    (one,) = loaded(setting(tmp_path, WATCH))
    assert isinstance(one.entry.application_filter, AttachEach)


def test_helpers_beside_an_application_filter_do_not_make_it_two(tmp_path: Path) -> None:
    (one,) = loaded(setting(tmp_path, APPLICATION + WATCH))
    assert type(one.entry.application_filter).__name__ == "Tell"


def test_the_order_of_the_policy_is_kept(tmp_path: Path) -> None:
    names = ["b", "a", "c"]
    assert [one.entry.name for one in loaded(*(setting(tmp_path, WATCH, name) for name in names))] == names


def test_the_filter_s_interest_counts_unless_the_policy_says_otherwise(tmp_path: Path) -> None:
    interested = WATCH.replace("    pass", '    interest = Interest.of("http", "tcp/8080")')
    interested = interested.replace("import StreamFilter", "import Interest, StreamFilter")
    ports = (PortRange("tcp", 9, 9),)
    own, told = loaded(
        setting(tmp_path, interested, "own"), setting(tmp_path, interested, "told", protocols=ports)
    )
    joins = [[one.entry.joins(port, None, ClientKind.SOCKS) for port in (80, 8080, 9)] for one in (own, told)]
    assert joins == [[True, True, False], [False, False, True]]


def test_an_interest_in_a_protocol_that_nobody_defined_is_a_mistake(tmp_path: Path) -> None:
    text = WATCH.replace("    pass", '    interest = Interest.of("gopher")')
    assert "gopher" in refused(setting(tmp_path, text.replace("import Stream", "import Interest, Stream")))


def test_unchanged_filters_are_kept_and_changed_ones_made_anew(tmp_path: Path) -> None:
    first = loaded(setting(tmp_path, APPLICATION, "a"), setting(tmp_path, APPLICATION, "b"))
    second = loaded(
        setting(tmp_path, APPLICATION, "a"), setting(tmp_path, APPLICATION + "\n", "b"), kept=first
    )
    assert second[0].entry is first[0].entry
    assert second[1].entry.application_filter is not first[1].entry.application_filter


def test_an_edit_of_the_same_size_within_the_same_second_is_an_edit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    for version in (1, 2):
        [made] = loaded(setting(tmp_path, TELL.format(version=version)))
        os.utime(tmp_path / "mine.py", (1_000_000_000, 1_000_000_000))
        module = sys.modules[type(made.entry.application_filter).__module__]
        assert vars(module)["VERSION"] == version
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.py"], "nothing is left beside it"


def test_other_settings_make_it_anew_and_another_association_does_not(tmp_path: Path) -> None:
    first = loaded(setting(tmp_path, APPLICATION))
    other = loaded(setting(tmp_path, APPLICATION, settings={"a": 1}), kept=first)
    assert other[0].entry.application_filter is not first[0].entry.application_filter
    moved = loaded(setting(tmp_path, APPLICATION, protocols=(PortRange("tcp", 9, 9),)), kept=first)
    assert moved[0].entry.application_filter is first[0].entry.application_filter
    assert moved[0].entry.ports == (PortRange("tcp", 9, 9),)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("def broken(", "line 1"),
        ("\n\nimport nowhere_to_be_found", "line 3"),
        ("x = 1", "none"),
        (WATCH + WATCH.replace("class Watch", "class Other"), "Watch, Other"),
        (APPLICATION + "\n    x = 1/0", "ZeroDivisionError"),
        ("raise SystemExit(3)", "SystemExit"),
        (b"\xff\xfe", "mine"),
        (b"x = '\0'", "mine"),
        (
            BAD_BEGINNING,
            "KeyError: 'level'",
        ),
    ],
)
def test_what_cannot_be_loaded_is_said_with_file_and_place(
    tmp_path: Path, text: str | bytes, told: str
) -> None:
    message = refused(setting(tmp_path, text))
    assert "mine.py" in message
    assert told in message


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert "nowhere.py" in refused(FilterSetting("mine", str(tmp_path / "nowhere.py")))


def test_an_installed_filter_is_found_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    class Point:
        value = "a_package:Mine"

        def __init__(self, found: object) -> None:
            self.load = lambda: found

    installed = {"good": [Point(ApplicationFilter)], "bad": [Point(7)]}
    monkeypatch.setattr(filters, "entry_points", lambda group, name: installed.get(name, []))
    (one,) = loaded(FilterSetting("mine", "good"))
    assert type(one.entry.application_filter) is ApplicationFilter
    assert "a_package:Mine" in refused(FilterSetting("mine", "bad"))
    assert "no installed package" in refused(FilterSetting("mine", "other"))
