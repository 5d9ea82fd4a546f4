"""Filters from files and installed packages to entries in force.

A file may hold one ApplicationFilter, or one DataFilter, which then is attached to every connection of its
interest. A filter whose file and settings have not changed lives on through a reload, with its state; so does what it
has made of the settings of a rule, while these have not changed.
"""

from __future__ import annotations

import hashlib
import itertools
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import msgspec
from msgspec import Struct

from doorward.api.filters import ApplicationFilter, DataFilter, StreamFilter
from doorward.config.filters import BUILT_IN, ENTRY_POINT_GROUP
from doorward.config.model import FilterSetting
from doorward.engine.association import FilterEntry, wanted
from doorward.policy.model import Protocols
from doorward.service.attach_each import AttachEach

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

_BASES: Final = (ApplicationFilter, DataFilter, StreamFilter)
RuleSettings: TypeAlias = dict[str | None, object]
_module_numbers = itertools.count(1)


class FilterNotLoaded(Exception):
    """A filter that the policy names cannot be had. The message says which, where, and why."""


class LoadedFilter(Struct, frozen=True):
    """A filter in force, and what it was made from. `compiled` is what it made of each set of settings, by its text."""

    setting: FilterSetting
    digest: str
    entry: FilterEntry
    compiled: Mapping[str, object] = msgspec.field(default_factory=dict)


def load_filters(
    settings: Sequence[FilterSetting], protocols: Protocols, kept: Iterable[LoadedFilter] = ()
) -> list[LoadedFilter]:
    """Every filter, in order; those that are unchanged are taken from `kept`. Raises FilterNotLoaded.

    Runs the code of filter files.
    """
    unchanged = {_key(loaded.setting, loaded.digest): loaded for loaded in kept}
    found: list[LoadedFilter] = []
    for setting in settings:
        source = _source(setting)
        digest = hashlib.sha256(source).hexdigest()
        old = unchanged.get(_key(setting, digest))
        application_filter = old.entry.application_filter if old is not None else _make(setting, source)
        rule_settings, compiled = _compile(setting, application_filter, {} if old is None else old.compiled)
        entry = _entry(setting, application_filter, protocols, rule_settings)
        if old is not None and _is_same(old.entry, entry):
            entry = old.entry
        found.append(LoadedFilter(setting, digest, entry, compiled))
    return found


def _compile(
    setting: FilterSetting, application_filter: ApplicationFilter, kept: Mapping[str, object]
) -> tuple[RuleSettings, Mapping[str, object]]:
    """What the filter makes of its settings for every rule that says something, and for all others (None).

    Called once for each different set; what was made of the same set before is taken from `kept`.
    """
    compiled: dict[str, object] = {}
    rule_settings: RuleSettings = {}
    wanted: list[tuple[str | None, Mapping[str, Any], int]] = [(None, setting.settings, setting.line)]
    wanted += [
        (said.rule, {**setting.settings, **said.settings}, said.line)
        for said in setting.rules
        if said.settings is not None
    ]
    for rule, settings, line in wanted:
        text = repr(settings)
        if text not in compiled:
            place = "its settings" if rule is None else f'its settings for rule "{rule}"'
            where = f"{_where(setting)}: {place}{f', line {line} of the policy' if line else ''}"
            compiled[text] = kept[text] if text in kept else _compiled(application_filter, settings, where)
        rule_settings[rule] = compiled[text]
    return rule_settings, compiled


def _compiled(application_filter: ApplicationFilter, settings: Mapping[str, Any], where: str) -> object:
    try:
        return application_filter.compile_settings(settings)
    except (Exception, SystemExit, KeyboardInterrupt) as error:
        raise FilterNotLoaded(f"{where}: {type(error).__name__}: {error}") from error


def _entry(
    setting: FilterSetting,
    application_filter: ApplicationFilter,
    protocols: Protocols,
    rule_settings: RuleSettings,
) -> FilterEntry:
    """Associate a filter: by the policy file where it says so, else by the filter's own interest."""
    if setting.fail == "open" and application_filter.defines_protocol:
        raise FilterNotLoaded(
            f'{_where(setting)}: fail = "open" is not for a filter that makes its protocol work; remove it'
        )
    interest = application_filter.interest
    if setting.protocols is not None:
        ports: tuple[Any, ...] | None = setting.protocols
        names: frozenset[str] | None = frozenset(setting.protocol_names)
    else:
        try:
            ports, names = wanted(interest, protocols)
        except ValueError as error:
            raise FilterNotLoaded(f"{_where(setting)}: its interest: {error}") from None
    off = frozenset(said.rule for said in setting.rules if said.settings is None)
    return FilterEntry(
        setting.name, application_filter, interest, ports, names, setting.fail, rule_settings, off
    )


def _is_same(old: FilterEntry, new: FilterEntry) -> bool:
    """Whether nothing about a filter that lives on has changed, down to the very objects it made of settings."""
    return (
        (old.ports, old.names, old.fail, old.off) == (new.ports, new.names, new.fail, new.off)
        and old.rule_settings.keys() == new.rule_settings.keys()
        and all(made is new.rule_settings[rule] for rule, made in old.rule_settings.items())
    )


def _key(setting: FilterSetting, digest: str) -> tuple[str, ...]:
    return setting.name, setting.use, repr(setting.settings), digest


def _where(setting: FilterSetting) -> str:
    return f'filter "{setting.name}" ({setting.use})'


def _source(setting: FilterSetting) -> bytes:
    """The file's bytes, read once; none for an installed filter, which changes only with the installation."""
    if not _is_file(setting.use):
        return b""
    try:
        return Path(setting.use).read_bytes()
    except OSError as error:
        raise FilterNotLoaded(f'filter "{setting.name}": {setting.use}: {error.strerror}') from None


def _is_file(use: str) -> bool:
    return use.endswith(".py") or "/" in use


def _make(setting: FilterSetting, source: bytes) -> ApplicationFilter:
    where = _where(setting)
    try:
        found = (
            _class_of_file(setting.use, source, where)
            if _is_file(setting.use)
            else _class_installed(setting.use, where)
        )
        if issubclass(found, DataFilter):
            return AttachEach(found, setting.settings)
        return found(setting.settings)
    except FilterNotLoaded:
        raise
    except (
        Exception,
        SystemExit,
        KeyboardInterrupt,
    ) as error:  # a script's `sys.exit()` must not end the firewall
        raise FilterNotLoaded(f"{where}: {_told(error, setting.use)}") from error


def _class_of_file(use: str, source: bytes, where: str) -> type[ApplicationFilter | DataFilter]:
    module = _run_file(Path(use), source)
    own = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, _BASES) and value.__module__ == module.__name__
    ]
    applications = [c for c in own if issubclass(c, ApplicationFilter)]
    candidates: list[Any] = applications or [c for c in own if issubclass(c, DataFilter)]
    if len(candidates) != 1:
        names = ", ".join(c.__name__ for c in candidates) or "none"
        raise FilterNotLoaded(
            f"{where}: a filter file holds one ApplicationFilter, or one DataFilter; this one holds {names}"
        )
    return candidates[0]  # type: ignore[no-any-return]  # one of the two, by the selection above


def _run_file(path: Path, source: bytes) -> ModuleType:
    """Run the very bytes that were read. Python's cache of compiled files would take an edit within the same second
    for no edit, and leaves its own files beside other people's.
    """
    name = f"doorward_filter_{path.stem}_{next(_module_numbers)}"
    module = ModuleType(name)
    module.__file__ = str(path)
    sys.modules[name] = module  # dataclasses and pickling look a class's module up by name
    try:
        exec(compile(source, str(path), "exec"), vars(module))  # noqa: S102 - a filter is code by definition
    except BaseException:
        del sys.modules[name]
        raise
    return module


def entry_points(*, group: str, name: str) -> Iterable[EntryPoint]:
    """The library's. It takes a while to load, and most filters are files."""
    from importlib import metadata

    return metadata.entry_points(group=group, name=name)


def _class_installed(name: str, where: str) -> type[ApplicationFilter | DataFilter]:
    """Built in, or offered by an installed package. Its own imports may fail in any way."""
    if name in BUILT_IN:
        module, _, class_name = BUILT_IN[name].partition(":")
        built_in: type[ApplicationFilter] = getattr(import_module(module), class_name)
        return built_in
    for point in entry_points(group=ENTRY_POINT_GROUP, name=name):
        found = point.load()
        if isinstance(found, type) and issubclass(found, _BASES):
            return found
        raise FilterNotLoaded(f"{where}: {point.value} is neither an ApplicationFilter nor a DataFilter")
    raise FilterNotLoaded(f"{where}: no installed package offers it in the group {ENTRY_POINT_GROUP}")


def _told(error: BaseException, use: str) -> str:
    """What went wrong, with the line of the filter's file where it did."""
    line = error.lineno if isinstance(error, SyntaxError) else None
    traceback = error.__traceback__
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename == use:
            line = traceback.tb_lineno
        traceback = traceback.tb_next
    return f"{f'line {line}: ' if line else ''}{type(error).__name__}: {error}"
