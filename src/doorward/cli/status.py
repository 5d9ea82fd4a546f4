"""`doorward status`: how the running firewall is, and each of its workers."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from doorward.cli.common import EXIT_UNAVAILABLE, control_socket, fail, plain
from doorward.record.render import duration_text, size_text
from doorward.service.control import ControlUnavailable, ask
from doorward.service.status import Status, WorkerStatus

_HEADINGS = (
    "worker",
    "pid",
    "state",
    "up",
    "open",
    "begun",
    "refused",
    "sessions",
    "waiting",
    "lost",
    "bytes",
)


@click.command("status", short_help="Say how the running firewall is.")
@click.option(
    "--policy", "-p", type=click.Path(path_type=Path), metavar="FILE", help="The policy file it runs with."
)
@click.option(
    "--socket",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Its control socket, if not the policy's.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object, with everything.")
def command(policy: Path | None, socket: Path | None, as_json: bool) -> None:
    """Say what is in force, and for each process that serves clients how much it has to do.

    open, begun: connections alive, and since the process was started. refused: records of what was denied or failed.
    waiting, lost: records that are not on disk yet, or never came there. bytes: of connections that are over.
    """
    try:
        answer = ask(socket or control_socket(policy), "status")
    except ControlUnavailable as error:
        fail(str(error), EXIT_UNAVAILABLE)
    if answer.status is None:
        fail(answer.message)
    if as_json:
        click.echo(msgspec.json.encode(answer.status).decode())
    else:
        _show(answer.status)


def _show(status: Status) -> None:
    counts = status.counts
    facts = {
        "doorward": f"{status.version}, process {status.pid}, up {_time(status.uptime_s)}",
        "policy": f"{status.path}, revision {status.policy}",
        "listening": ", ".join(status.listening),
        "relay": status.relay,
        "filters": ", ".join(status.filters) or "none",
        "records": f"{counts.allowed} allowed, {counts.denied} denied, {counts.failed} failed",
        "bytes": f"{size_text(counts.bytes_sent)} sent, {size_text(counts.bytes_received)} received",
    }
    for name, value in facts.items():
        click.echo(f"{name:<9}  {plain(value)}")
    for name, flows in status.kernel.items():
        click.echo(f"{'kernel':<9}  {flows} {plain(name)}")
    rows = [_HEADINGS, *map(_row, status.workers)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    click.echo()
    for row in rows:
        click.echo("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))
    for worker in status.workers:
        if worker.log_failure is not None:
            who = f"worker {worker.worker}: " if worker.worker else ""
            click.echo(plain(f"{who}{worker.log_failure}"), err=True)


def _row(worker: WorkerStatus) -> tuple[str, ...]:
    counts = worker.counts
    if worker.state in ("down", "silent", "starting"):
        told = ["-"] * 7
    else:
        refused = counts.denied + counts.failed
        numbers = (worker.connections, worker.begun, refused, worker.sessions)
        told = [*map(str, numbers), str(worker.records_waiting), str(worker.records_lost)]
        told.append(size_text(counts.bytes_sent + counts.bytes_received))
    again = f" ({worker.restarts} restarts)" if worker.restarts else ""
    pid = str(worker.pid) if worker.pid else "-"
    return (_name(worker), pid, worker.state + again, _time(worker.uptime_s), *told)


def _name(worker: WorkerStatus) -> str:
    """Its place; where there is one process it has none."""
    return str(worker.worker) if worker.worker else "-"


def _time(seconds: float) -> str:
    return duration_text(int(seconds * 1_000_000))
