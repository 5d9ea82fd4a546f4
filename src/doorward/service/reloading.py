"""What a reload has in common whether one process serves clients or several: reading the policy, and what is told."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any, Final, NamedTuple

from doorward.config.loading import read_bytes
from doorward.config.model import Configuration
from doorward.config.problems import ConfigurationRefused
from doorward.config.source import read_source
from doorward.service.control import Answer

GIVE_WAY_S: Final = 0.0005
# Whoever reloads by SIGHUP has only the operational log to look into.
PROBLEMS_TOLD_MAX: Final = 20


class PolicyText(NamedTuple):
    """A policy that has passed its check, and the very bytes that it was read from."""

    configuration: Configuration
    text: bytes


def read_policy(path: Path) -> PolicyText:
    """Blocks. Raises ConfigurationRefused with every problem."""
    text = read_source(path)
    return PolicyText(policy_of(text, path), text)


def policy_of(text: bytes, path: Path) -> Configuration:
    """Blocks. Raises ConfigurationRefused with every problem."""
    reading = read_bytes(text, path)
    if reading.configuration is None:
        raise ConfigurationRefused(reading.problems)
    return reading.configuration


async def giving_way(function: Any, *arguments: Any) -> Any:
    """Run it in a thread that gives way to the loop more often than every 5 ms: a large policy takes seconds."""
    usual_s = sys.getswitchinterval()
    sys.setswitchinterval(GIVE_WAY_S)
    try:
        return await asyncio.get_running_loop().run_in_executor(None, function, *arguments)
    finally:
        sys.setswitchinterval(usual_s)


def refused(log: Any, in_force: Configuration, error: Exception, **fields: object) -> Answer:
    """Tell of a reload that has changed nothing, and why."""
    if isinstance(error, ConfigurationRefused):
        problems = [str(problem) for problem in error.problems]
        for problem in problems[:PROBLEMS_TOLD_MAX]:
            log.error("a problem in the policy file", problem=problem)
        log.error("reload refused", in_force=in_force.revision, problems=len(problems))
        return Answer(
            False, "the policy file does not pass its check; the old policy stays in force", problems
        )
    log.error("reload refused", in_force=in_force.revision, error=str(error), **fields)
    return Answer(False, f"{error}; the old policy stays in force")


def reloaded(log: Any, old: Configuration, new: Configuration, filters: int) -> Answer:
    """Tell of a reload that is in force."""
    log.info("reloaded", policy=new.revision, rules=len(new.policy.rules), filters=filters)
    waiting = [
        name
        for name, before, after in (
            ("[log]", old.log, new.log),
            ("[control]", old.control_path, new.control_path),
            ("workers", old.workers, new.workers),
        )
        if before != after
    ]
    hints = [f"changes of {' and '.join(waiting)} take effect at the next start"] if waiting else []
    return Answer(True, f"policy {new.revision} is in force", hints)
