from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from tests.engine.rig import Rig
from tests.entry.filters import NOT_STARTING, TELL

from doorward.config.loading import load
from doorward.config.model import Configuration, FilterSetting
from doorward.engine.association import FilterEntry
from doorward.engine.engine import Engine
from doorward.engine.supervision import Watchdog
from doorward.service.filter_set import FilterSet
from doorward.service.filters import FilterNotLoaded

pytestmark = pytest.mark.anyio

BAD_END = """
import asyncio
from doorward.api import ApplicationFilter

class BadEnd(ApplicationFilter):
    async def stop(self):
        {}
"""


class Told:
    """Stands in for the operational log."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def info(self, event: str, **fields: Any) -> None:
        self.lines.append(f"{event} {fields.get('version', '')}".strip())

    def error(self, event: str, **fields: Any) -> None:
        self.lines.append(f"{event}: {fields['filter']} {type(fields['error']).__name__}")


def configuration(home: Path, **files: str) -> Configuration:
    """A policy with these filters, in this order."""
    policy = "[limits]\nevent_timeout_s = 0.05\n"
    for name, text in files.items():
        (home / f"{name}.py").write_text(text)
        policy += f'[[filter]]\nname = "{name}"\nuse = "{name}.py"\n'
    (home / "doorward.toml").write_text(policy)
    return load(home / "doorward.toml")


def filter_set(told: Told, *extra: FilterSetting, watchdog: Watchdog | None = None) -> FilterSet:
    def no_engine() -> Engine:
        raise AssertionError("none of these filters opens anything")

    return FilterSet(told, extra, no_engine, watchdog or Watchdog(5.0))


def tell(version: int) -> str:
    return TELL.format(version=version)


async def test_filters_start_in_order_and_stop_when_they_leave(tmp_path: Path) -> None:
    told = Told()
    filters = filter_set(told)
    both = configuration(tmp_path, a=tell(1), b=tell(2))
    filters.commit(await filters.prepare(both))
    assert [entry.name for entry in filters.entries] == ["a", "b"]
    only = configuration(tmp_path, b=tell(2))
    filters.commit(await filters.prepare(only))
    await filters.stop_unused((), only)
    await filters.stop_unused((), only)
    assert told.lines == ["started 1", "started 2", "stopped 1"]


RULES = """
[[rule]]
name = "{rule}"
action = "allow"
protocols = ["http"]
filters.a = {{ word = "{word}" }}
[[rule]]
name = "quiet"
action = "allow"
protocols = ["https"]
filters.a = false
"""


async def test_a_rule_s_settings_are_in_force_and_a_reload_leaves_what_has_not_changed(
    tmp_path: Path,
) -> None:
    told = Told()
    filters = filter_set(told)

    async def reload(rule: str, word: str) -> FilterEntry:
        configuration(tmp_path, a=tell(1))
        with (tmp_path / "doorward.toml").open("a") as policy:
            policy.write(RULES.format(rule=rule, word=word))
        filters.commit(await filters.prepare(load(tmp_path / "doorward.toml")))
        return filters.entries[0]

    first = await reload("web", "hello")
    assert first.settings_of("web") == {"word": "hello"}
    assert first.settings_of(None) == {}
    assert first.off == {"quiet"}
    assert await reload("web", "hello") is first
    renamed = await reload("the web", "hello")
    assert renamed.settings_of("the web") is first.settings_of("web")
    changed = await reload("web", "good day")
    assert changed.settings_of("web") == {"word": "good day"}
    assert changed.application_filter is first.application_filter
    assert told.lines == ["started 1"], "the filter lives on through all of it"


async def test_one_that_has_left_is_stopped_when_nobody_uses_it_any_more(tmp_path: Path) -> None:
    told = Told()
    filters = filter_set(told)
    settings = configuration(tmp_path, a=tell(1))
    filters.commit(await filters.prepare(settings))
    entries = filters.entries
    filters.commit([])
    await filters.stop_unused(entries, settings)
    assert told.lines == ["started 1"]
    await filters.stop_unused((), settings)
    assert told.lines == ["started 1", "stopped 1"]


async def test_when_one_does_not_start_the_others_are_stopped_again(tmp_path: Path) -> None:
    told = Told()
    filters = filter_set(told)
    filters.commit(await filters.prepare(configuration(tmp_path, a=tell(1))))
    with pytest.raises(FilterNotLoaded, match="no licence"):
        await filters.prepare(configuration(tmp_path, a=tell(1), b=tell(2), c=NOT_STARTING))
    assert told.lines == ["started 1", "started 2", "stopped 2"]
    assert [entry.name for entry in filters.entries] == ["a"]


async def test_one_that_does_not_come_to_start_is_given_up(tmp_path: Path) -> None:
    slow = NOT_STARTING.replace(
        'raise RuntimeError("no licence")', "import asyncio; await asyncio.Event().wait()"
    )
    with pytest.raises(FilterNotLoaded, match="did not start in time"):
        await filter_set(Told()).prepare(configuration(tmp_path, slow=slow))


@pytest.mark.parametrize(
    ("what", "error"),
    [
        ("raise KeyError(1)", "KeyError"),
        ("raise SystemExit(1)", "FilterFailed"),
        ("await asyncio.Event().wait()", "TimeoutError"),
    ],
)
async def test_one_that_does_not_stop_in_order_is_logged_and_the_rest_stop(
    tmp_path: Path, what: str, error: str
) -> None:
    told = Told()
    filters = filter_set(told)
    settings = configuration(tmp_path, bad=BAD_END.format(what), good=tell(1))
    filters.commit(await filters.prepare(settings))
    filters.commit([])
    await filters.stop_unused((), settings)
    assert told.lines == ["started 1", f"a filter failed to stop: bad {error}", "stopped 1"]


@pytest.mark.parametrize("when", ["start(self, firewall)", "stop(self)"])
async def test_one_that_holds_the_loop_to_start_or_to_stop_is_interrupted(
    tmp_path: Path, make_rig: Callable[..., Rig], when: str
) -> None:
    told = Told()
    filters = filter_set(told, watchdog=make_rig(stall_s=0.05).watchdog)
    busy = BAD_END.format("while True: pass").replace("stop(self)", when)
    settings = configuration(tmp_path, good=tell(1), busy=busy)
    settings = replace(settings, limits=replace(settings.limits, event_timeout_s=5.0))
    if when.startswith("start"):
        with pytest.raises(FilterNotLoaded, match="held the loop"):
            await filters.prepare(settings)
        assert told.lines == ["started 1", "stopped 1"]
    else:
        filters.commit(await filters.prepare(settings))
        filters.commit([])
        await filters.stop_unused((), settings)
        assert told.lines == ["started 1", "stopped 1", "a filter failed to stop: busy FilterStalled"]


async def test_filters_of_the_command_line_come_after_those_of_the_policy_and_stay(tmp_path: Path) -> None:
    (tmp_path / "extra.py").write_text(tell(9))
    filters = filter_set(Told(), FilterSetting("extra", str(tmp_path / "extra.py")))
    filters.commit(await filters.prepare(configuration(tmp_path, a=tell(1))))
    assert [entry.name for entry in filters.entries] == ["a", "extra"]
    filters.commit(await filters.prepare(configuration(tmp_path)))
    assert [entry.name for entry in filters.entries] == ["extra"]


async def test_stopping_may_be_cancelled_by_nobody_but_the_caller(tmp_path: Path) -> None:
    filters = filter_set(Told())
    settings = configuration(tmp_path, bad=BAD_END.format("await asyncio.Event().wait()"))
    filters.commit(await filters.prepare(settings))
    filters.commit([])
    stopping = asyncio.get_running_loop().create_task(filters.stop_unused((), settings))
    await asyncio.sleep(0)
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopping
