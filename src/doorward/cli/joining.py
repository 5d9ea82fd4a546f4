"""`doorward run --join`: a command behind a firewall that is running already."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import click

from doorward.capture.launch import CannotCapture

if TYPE_CHECKING:
    from pathlib import Path

    from doorward.capture.launch import Launch
    from doorward.cli.launching import Wish
    from doorward.service.run_refusals import Ran


def expect_sense(wish: Wish) -> None:
    """Refuse options that say something about a firewall of the command's own, or about none. Raises UsageError."""
    if not wish.join:
        if wish.socket is not None:
            raise click.UsageError("--socket says which firewall to join: use it with --join")
        return
    if wish.filters:
        raise click.UsageError(
            "--filter cannot be used with --join: the running firewall has its own filters"
        )
    if wish.log_path is not None:
        raise click.UsageError("--log cannot be used with --join: the running firewall has its own log")
    if wish.socket is not None and wish.policy is not None:
        raise click.UsageError("--policy and --socket both say which firewall to join: use one of them")


def run_joining(started: Launch, wish: Wish) -> Ran:
    """Everything between the fork and the program's end. Raises CannotCapture, ProgramNotRun; ends the command."""
    import asyncio

    from doorward.service.join_client import JoinRefused, join, run_joined
    from doorward.service.run_signals import Signals

    gc.freeze()
    gc.enable()
    signals = Signals()
    try:
        sock, settle_s = join(_control(wish), started, wish.words, log_command=wish.log_command)
    except JoinRefused as error:
        raise CannotCapture(str(error)) from error
    with sock:
        return asyncio.run(run_joined(sock, settle_s, started, signals, _lost))


def _control(wish: Wish) -> Path:
    from doorward.cli.common import control_socket

    return wish.socket or control_socket(wish.policy)


def _lost() -> None:
    click.echo("doorward: the firewall has ended: the command has no network any more", err=True)
