"""Filters from files and installed packages to entries in force.

A file may hold one ApplicationFilter, or one DataFilter, which then is attached to every connection of its
interest. A filter whose file and settings have not changed lives on through a reload, with its state.
"""

from __future__ import annotations

import hashlib
import itertools
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import msgspec

from doorward.api.contracts import Session
from doorward.api.events import ConnectEvent
from doorward.api.filters import ApplicationFilter, DataFilter, SessionFilter, StreamFilter
from doorward.config.model import FilterSetting
from doorward.engine.association import FilterEntry, wanted
from doorward.policy.model import Protocols

ENTRY_POINT_GROUP: Final = "doorward.filters"

_BASES: Final = (ApplicationFilter, DataFilter, StreamFilter)
_module_numbers = itertools.count(1)


class FilterNotLoaded(Exception):
    """A filter that the policy names cannot be had. The message says which, where, and why."""


@dataclass(frozen=True, slots=True)
class LoadedFilter:
    """A filter in force, and what it was made from."""

    setting: FilterSetting
    digest: str
    entry: FilterEntry


def load_filters(
    settings: Sequence[FilterSetting], protocols: Protocols, kept: Iterable[LoadedFilter] = ()
) -> list[LoadedFilter]:
    """Every filter, in order; those that are unchanged are taken from `kept`. Raises FilterNotLoaded.

    Runs the code of filter files.
    """
    unchanged = {_key(loaded.setting, loaded.digest): loaded.entry for loaded in kept}
    found: list[LoadedFilter] = []
    for setting in settings:
        source = _source(setting)
        digest = hashlib.sha256(source).hexdigest()
        old = unchanged.get(_key(setting, digest))
        application_filter = old.application_filter if old is not None else _make(setting, source)
        entry = _entry(setting, application_filter, protocols)
        if old is not None and _same_association(old, entry):
            entry = old
        found.append(LoadedFilter(setting, digest, entry))
    return found


def _entry(
    setting: FilterSetting, application_filter: ApplicationFilter, protocols: Protocols
) -> FilterEntry:
    """Associate a filter: by the policy file where it says so, else by the filter's own interest."""
    interest = application_filter.interest
    if setting.protocols is not None:
        ports: tuple[Any, ...] | None = setting.protocols
        names: frozenset[str] | None = frozenset(setting.protocol_names)
    else:
        try:
            ports, names = wanted(interest, protocols)
        except ValueError as error:
            raise FilterNotLoaded(f'filter "{setting.name}" ({setting.use}): its interest: {error}') from None
    return FilterEntry(setting.name, application_filter, interest, ports, names, setting.fail)


def _same_association(old: FilterEntry, new: FilterEntry) -> bool:
    return (old.ports, old.names, old.fail) == (new.ports, new.names, new.fail)


def _key(setting: FilterSetting, digest: str) -> bytes:
    return msgspec.json.encode((setting.name, setting.use, dict(setting.settings), digest), enc_hook=str)


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
    where = f'filter "{setting.name}" ({setting.use})'
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


def _class_installed(name: str, where: str) -> type[ApplicationFilter | DataFilter]:
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


class AttachEach(ApplicationFilter):
    """Makes a filter of a DataFilter class alone: a new instance for each connection of its interest."""

    def __init__(self, data_filter: type[DataFilter], settings: Mapping[str, Any]) -> None:
        super().__init__(settings)
        self.data_filter = data_filter
        self.interest = data_filter.interest  # type: ignore[misc]  # this class has no interest of its own

    def session_filter(self, session: Session) -> SessionFilter:
        """One object serves every session: it keeps nothing."""
        return _Attach(self)


class _Attach(SessionFilter):
    def __init__(self, plugin: AttachEach) -> None:
        self._plugin = plugin

    async def on_connect(self, event: ConnectEvent) -> None:
        data_filter = self._plugin.data_filter()
        data_filter.settings = self._plugin.settings
        event.connection.attach_data_filter(data_filter)
