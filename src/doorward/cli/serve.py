"""`doorward serve`: run the firewall in the foreground."""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import sys
from functools import partial
from pathlib import Path

import click

from doorward.cli.common import fail, policy_option, read_policy
from doorward.config.find import PolicyNotFound, find_policy
from doorward.config.model import Configuration, FilterSetting
from doorward.service.firewall import StartRefused
from doorward.service.operational_log import make_logger
from doorward.service.running import hold_hangup, run
from doorward.service.status import Status


@click.command("serve", short_help="Run the firewall in the foreground.")
@policy_option
@click.option(
    "--filter", "-s", "filters", multiple=True, metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A filter to run besides those of the policy; may be given again.",
)  # fmt: skip
@click.option(
    "--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info", show_default=True
)
def command(policy: Path | None, filters: tuple[Path, ...], log_level: str) -> None:
    """Run the firewall until Ctrl-C (at once) or SIGTERM (connections may end first). SIGHUP reloads the policy."""
    hold_hangup()
    configuration, reading = read_policy(policy)
    for problem in reading.problems:
        click.echo(str(problem), err=True)
    extra = [FilterSetting(path.stem, str(path.resolve())) for path in filters]
    log = make_logger(level=log_level)
    status = 0
    try:
        asyncio.run(
            run(configuration, log, extra_filters=extra, log_level=log_level, ready=partial(_tell, policy))
        )
    except StartRefused as error:
        click.echo(f"doorward: {error}", err=True)
        status = 1
    except OSError as error:
        fail(f"cannot start: {error}")
    sys.stdout.flush()
    sys.stderr.flush()
    # Every record is written. A thread that still waits inside the system's resolver must not hold the process.
    os._exit(status)


def _tell(given: Path | None, configuration: Configuration, status: Status) -> None:
    """Where it listens, what is in force, what to try."""
    me, policy = _command(), _to_be_given(given)
    rules = len(configuration.policy.rules)
    workers = f"  workers    {len(status.workers)}\n" if len(status.workers) > 1 else ""
    click.echo(
        f"doorward {status.version} is ready\n"
        f"  listening  {', '.join(status.listening)}  (SOCKS4, SOCKS4a, SOCKS5 and HTTP proxy)\n"
        f"  policy     {configuration.path}, revision {configuration.revision}, {rules} rules\n"
        f"  relay      {status.relay}\n"
        f"{workers}"
        f"  filters    {', '.join(status.filters) or 'none'}\n"
        f"  log        {configuration.log.path}\n"
        f"try, from another terminal:\n"
        f"  curl --socks5-hostname {status.listening[0]} http://example.com/\n"
        f"  {me} explain{policy} --to tcp://169.254.169.254:80\n"
        f"  {me} log{policy} --follow"
    )
    sys.stdout.flush()


def _to_be_given(policy: Path | None) -> str:
    """The option for other commands, if they would not find this policy by themselves."""
    try:
        is_found = policy is None or find_policy().resolve() == policy.resolve()
    except PolicyNotFound:
        is_found = False
    return "" if is_found else f" --policy {shlex.quote(str(policy))}"


def _command() -> str:
    """How to call us from another terminal."""
    if shutil.which("doorward") is not None:
        return "doorward"
    called = Path(sys.argv[0])
    return str(called) if called.name == "doorward" else f"{sys.executable} -m doorward"
