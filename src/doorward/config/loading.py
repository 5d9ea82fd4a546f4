"""A policy file to a configuration, or all that is wrong with it.

What does not pass is never loaded: there is no half configuration. Every mistake is found in one run, since an
operator who fixes one mistake at a time tires before the last.
"""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from doorward.config.advice import advise
from doorward.config.definitions import read_definitions
from doorward.config.filters import read_filters
from doorward.config.lines import Lines
from doorward.config.model import Configuration
from doorward.config.problems import ConfigurationRefused, Problem, Report
from doorward.config.publish import read_published
from doorward.config.routes import read_routes
from doorward.config.rules import RuleReader
from doorward.config.settings import read_control_path, read_limits, read_listen, read_log, read_workers
from doorward.config.shape import shape
from doorward.config.source import parse_toml, read_source
from doorward.config.transparent import read_transparent
from doorward.config.upstreams import read_upstreams
from doorward.policy.evaluation import Policy

REVISION_LENGTH = 12


class Reading(NamedTuple):
    """A configuration, if there is no error among the problems, and everything noticed, in the order of the file."""

    configuration: Configuration | None
    problems: tuple[Problem, ...]


def load(path: Path) -> Configuration:
    """The configuration that the file at `path` describes. Raises ConfigurationRefused with every problem."""
    reading = read(path)
    if reading.configuration is None:
        raise ConfigurationRefused(reading.problems)
    return reading.configuration


def check(path: Path) -> list[Problem]:
    """Everything wrong or doubtful about the file at `path`; empty if there is nothing to say."""
    return list(read(path).problems)


def read(path: Path) -> Reading:
    """Both at once: the configuration for whoever starts a firewall, and the warnings to show with it."""
    try:
        return read_bytes(read_source(path), path)
    except ConfigurationRefused as refusal:
        return Reading(None, refusal.problems)


def read_bytes(data: bytes, path: Path) -> Reading:
    """The same for text that is not (yet) in the file; `path` says what it is relative to, and is named."""
    with _collector_paused():
        try:
            text, content = parse_toml(data, path)
        except ConfigurationRefused as refusal:
            return Reading(None, refusal.problems)
        return _read(data, text, content, path)


def _read(data: bytes, text: str, content: Mapping[str, Any], path: Path) -> Reading:
    report = Report(str(path), Lines(text))
    directory = path.absolute().parent
    document = shape(content, report)
    definitions = read_definitions(document, report)
    reader = RuleReader(definitions, report)
    rules = [reader.read(index, table) for index, table in enumerate(document.rule)]
    listen = read_listen(document, report)
    upstreams = read_upstreams(document, directory, listen, report)
    routes = read_routes(document, reader, upstreams, report)
    published = read_published(document, reader, listen, definitions.protocols, report)
    revision = hashlib.sha256(data).hexdigest()[:REVISION_LENGTH]
    configuration = Configuration(
        path=path.absolute(),
        revision=revision,
        listen=listen,
        control_path=read_control_path(document, directory, report),
        log=read_log(document, directory, report),
        limits=read_limits(document),
        protocols=definitions.protocols,
        users=definitions.users,
        filters=read_filters(document, directory, definitions.protocols, report),
        policy=Policy([] if report.failed else rules, revision),
        upstreams=upstreams,
        routes=routes,
        workers=read_workers(document, report),
        published=published,
        transparent=read_transparent(document, directory, reader, listen, published, report),
    )
    if report.failed:
        return Reading(None, tuple(report.problems()))
    advise(document, listen, rules, reader.used, report)
    return Reading(configuration, tuple(report.problems()))


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Without the garbage collector: it would walk the growing policy over and over, a quarter of all the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
