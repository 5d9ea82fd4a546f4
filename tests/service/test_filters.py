from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from tests.entry.filters import TELL, WATCH

from doorward.api.filters import ApplicationFilter, ClientKind
from doorward.config.filters import BUILT_IN
from doorward.config.model import FilterSetting, RuleSetting
from doorward.engine.association import Way
from doorward.policy.model import PortRange, Protocols
from doorward.service import filters
from doorward.service.attach_each import AttachEach
from doorward.service.filters import FilterNotLoaded, LoadedFilter, load_filters

PROTOCOLS = Protocols(
    {
        "http": (PortRange("tcp", 80, 80),),
        "ftp": (PortRange("tcp", 21, 21),),
        "tftp": (PortRange("udp", 69, 69),),
    }
)
BAD_BEGINNING = """
from doorward.api import ApplicationFilter

class A(ApplicationFilter):
    def __init__(self, settings):
        raise KeyError("level")
"""
APPLICATION = TELL.format(version=1)
# Makes a new object of each set of settings, and will not have some.
COMPILES = """
from doorward.api import ApplicationFilter

class Compiles(ApplicationFilter):
    calls = 0

    def compile_settings(self, settings):
        self.calls += 1
        if settings.get("word") == "forbidden":
            raise ValueError("no such word")
        if settings.get("word") == "exit":
            raise SystemExit(1)
        return ["made of", dict(settings)]
"""
DEFINES = """
from doorward.api import ApplicationFilter

class Defines(ApplicationFilter):
    defines_protocol = True
"""


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
    ways = [Way("tcp", port, None, ClientKind.SOCKS) for port in (80, 8080, 9)]
    joins = [[one.entry.joins(way) for way in ways] for one in (own, told)]
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


def compiles(home: Path, **rules: Mapping[str, object] | None) -> FilterSetting:
    said = tuple(RuleSetting(rule, settings, 10 + i) for i, (rule, settings) in enumerate(rules.items()))
    return setting(home, COMPILES, settings={"word": "hello", "by": 1}, line=3, rules=said)


def test_a_rule_s_settings_overlay_the_filter_s_and_are_compiled_once_for_each_different_set(
    tmp_path: Path,
) -> None:
    same = {"word": "other"}
    (one,) = loaded(
        compiles(tmp_path, a=same, b={"more": [1]}, c=dict(same), d={}, e={"word": "hello"}, f=None)
    )
    made = one.entry.settings_of
    assert made(None) == ["made of", {"word": "hello", "by": 1}]
    assert made("a") == ["made of", {"word": "other", "by": 1}]
    assert made("b") == ["made of", {"word": "hello", "by": 1, "more": [1]}]
    assert made("c") is made("a")
    assert made("d") is made("e") is made("a rule that says nothing") is made(None)
    assert vars(one.entry.application_filter)["calls"] == 3
    assert one.entry.off == {"f"}


def test_what_was_made_of_unchanged_settings_stays_through_a_reload(tmp_path: Path) -> None:
    first = loaded(compiles(tmp_path, a={"word": "x"}, b={"word": "y"}, c={"word": "z"}))
    again = loaded(compiles(tmp_path, a={"word": "x"}, b={"word": "y"}, c={"word": "z"}), kept=first)
    assert again[0].entry is first[0].entry
    (old,), (new,) = (
        again,
        loaded(compiles(tmp_path, a={"word": "x"}, b={"word": "Y"}, d={"word": "z"}), kept=again),
    )
    assert new.entry.application_filter is old.entry.application_filter
    for rule in (None, "a"):
        assert new.entry.settings_of(rule) is old.entry.settings_of(rule)
    assert new.entry.settings_of("d") is old.entry.settings_of("c"), "it moved to another rule"
    assert new.entry.settings_of("c") is new.entry.settings_of(None)
    assert new.entry.settings_of("b") == ["made of", {"word": "Y", "by": 1}]
    assert vars(new.entry.application_filter)["calls"] == 5
    back = loaded(compiles(tmp_path, a={"word": "x"}, b={"word": "y"}), kept=[new])
    assert back[0].entry.settings_of("b") is not old.entry.settings_of("b"), "what nobody uses is not kept"


def test_other_settings_for_the_same_rule_are_in_force_after_a_reload(tmp_path: Path) -> None:
    first = loaded(compiles(tmp_path, a={"word": "x"}))
    second = loaded(compiles(tmp_path, a={"word": "y"}), kept=first)
    assert second[0].entry.settings_of("a") == ["made of", {"word": "y", "by": 1}]


def test_turning_a_filter_off_for_a_rule_is_a_change(tmp_path: Path) -> None:
    first = loaded(compiles(tmp_path))
    second = loaded(compiles(tmp_path, a=None), kept=first)
    assert (first[0].entry.off, second[0].entry.off) == (frozenset(), frozenset({"a"}))
    assert second[0].entry.application_filter is first[0].entry.application_filter


def test_when_the_filter_itself_changes_everything_is_made_anew(tmp_path: Path) -> None:
    first = loaded(compiles(tmp_path, a={"word": "x"}))
    second = loaded(
        setting(tmp_path, COMPILES + "\n", settings=first[0].setting.settings, rules=first[0].setting.rules),
        kept=first,
    )
    assert second[0].entry.settings_of("a") == first[0].entry.settings_of("a")
    assert second[0].entry.settings_of("a") is not first[0].entry.settings_of("a")


@pytest.mark.parametrize(
    ("one", "other"), [(1, 1.0), (1, True), (date(2026, 1, 1), "2026-01-01"), (float("inf"), float("-inf"))]
)
def test_settings_that_only_look_alike_are_different(tmp_path: Path, one: object, other: object) -> None:
    (found,) = loaded(compiles(tmp_path, a={"by": one}, b={"by": other}))
    assert found.entry.settings_of("a") is not found.entry.settings_of("b")
    first = loaded(setting(tmp_path, COMPILES, settings={"by": one}))
    second = loaded(setting(tmp_path, COMPILES, settings={"by": other}), kept=first)
    assert second[0].entry.application_filter is not first[0].entry.application_filter


@pytest.mark.parametrize(
    ("word", "told"), [("forbidden", "ValueError: no such word"), ("exit", "SystemExit: 1")]
)
def test_settings_that_a_filter_will_not_have_are_said_with_filter_rule_and_line(
    tmp_path: Path, word: str, told: str
) -> None:
    message = refused(compiles(tmp_path, a={"by": 2}, b={"word": word}))
    assert message == (
        f'filter "mine" ({tmp_path}/mine.py): its settings for rule "b", line 11 of the policy: {told}'
    )
    message = refused(setting(tmp_path, COMPILES, settings={"word": word}, line=3))
    assert message == f'filter "mine" ({tmp_path}/mine.py): its settings, line 3 of the policy: {told}'


def test_a_filter_that_compiles_nothing_gets_its_settings_as_they_are_written(tmp_path: Path) -> None:
    said = (RuleSetting("a", {"b": 2}),)
    (one,) = loaded(setting(tmp_path, APPLICATION, settings={"a": 1}, rules=said))
    assert (one.entry.settings_of(None), one.entry.settings_of("a")) == ({"a": 1}, {"a": 1, "b": 2})


def test_one_that_makes_its_protocol_work_cannot_be_gone_on_without(tmp_path: Path) -> None:
    assert 'fail = "open" is not for' in refused(setting(tmp_path, DEFINES, fail="open"))
    off = (RuleSetting("a", None),)
    (one,) = loaded(setting(tmp_path, DEFINES, rules=off))
    assert one.entry.off == {"a"}, "turning it off is allowed"


def test_a_built_in_filter_is_found_where_nothing_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filters, "entry_points", lambda group, name: [])
    monkeypatch.setattr(filters, "BUILT_IN", {"plain": "doorward.api.filters:ApplicationFilter"})
    (one,) = loaded(FilterSetting("mine", "plain"))
    assert type(one.entry.application_filter) is ApplicationFilter


@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_every_built_in_filter_can_be_had(name: str) -> None:
    (one,) = loaded(FilterSetting("mine", name))
    assert type(one.entry.application_filter).__module__.startswith("doorward.filters.")
