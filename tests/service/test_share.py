from __future__ import annotations

import os
import socket
from pathlib import Path

import msgspec
import pytest

from doorward.config.document import WORKERS_MAX
from doorward.config.loading import read_bytes
from doorward.config.model import Configuration, Limits
from doorward.record.remote import RemoteWriter
from doorward.service.share import Bound, Share, all_bound, bound_at, share_of, worker_count


def configuration(text: str) -> Configuration:
    found = read_bytes(text.encode(), Path("/nowhere/doorward.toml")).configuration
    assert found is not None
    return found


def test_there_are_as_many_workers_as_the_policy_says_or_as_cores_that_may_be_used() -> None:
    assert worker_count(configuration("")) == 1
    assert worker_count(configuration("[listen]\nworkers = 5")) == 5
    cores = min(len(os.sched_getaffinity(0)), WORKERS_MAX)
    assert worker_count(configuration('[listen]\nworkers = "auto"')) == cores


def test_auto_looks_at_what_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(100)))
    assert worker_count(configuration('[listen]\nworkers = "auto"')) == WORKERS_MAX
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {7})
    assert worker_count(configuration('[listen]\nworkers = "auto"')) == 1


@pytest.mark.parametrize(
    ("total", "workers", "part"), [(10, 3, 4), (9, 3, 3), (1, 3, 1), (0, 3, 0), (7, 1, 7)]
)
def test_what_counts_all_clients_is_divided_and_what_counts_one_is_not(
    total: int, workers: int, part: int
) -> None:
    whole = configuration(
        f"[limits]\nconnections_max = {total}\nsessions_max = {max(total, 1)}\nconnections_per_client_max = 5\n"
    )
    mine = share_of(whole, workers)
    assert mine.limits.connections_max == part
    assert mine.limits.sessions_max == max(part, 1)
    changed = {"connections_max", "sessions_max"}
    for field in msgspec.structs.fields(Limits):
        if field.name not in changed:
            assert getattr(mine.limits, field.name) == getattr(whole.limits, field.name)
    assert mine.policy is whole.policy


def test_a_socket_is_taken_once_and_the_rest_is_closed() -> None:
    first, second = Bound("proxy", "127.0.0.1", 1), Bound("tcp", "127.0.0.1", 1)
    sockets = {first: socket.socket(), second: socket.socket()}
    ours, theirs = socket.socketpair()
    share = Share(RemoteWriter(ours), 1, dict(sockets))
    with sockets[first], theirs, ours:
        assert share.take(first) is sockets[first]
        assert share.take(first) is None
        share.close()
        share.close()
        assert sockets[first].fileno() >= 0
        assert sockets[second].fileno() < 0


def test_every_end_of_a_policy_is_named_once() -> None:
    whole = configuration(
        '[listen]\nproxy = ["127.0.0.1:0", "[::1]:1080"]\n[[publish]]\nname = "a"\nfrom = ["127.0.0.0/8"]\n'
        'listen = ["tcp/127.0.0.1:0", "udp/[::1]:53"]\nto = ["127.0.0.1:9"]\n'
    )
    assert all_bound(whole) == [
        Bound("proxy", "127.0.0.1", 0),
        Bound("proxy", "::1", 1080),
        Bound("tcp", "127.0.0.1", 0),
        Bound("udp", "::1", 53),
    ]
    assert bound_at(whole.listen[1]) == Bound("proxy", "::1", 1080)
