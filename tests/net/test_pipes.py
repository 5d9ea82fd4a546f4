"""Pipes are lent empty, kept in small number, and never lost."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator

import pytest
from tests.net.wires import open_descriptors

from doorward.net import pipes
from doorward.net.pipes import PIPES_FREE_MAX, PIPES_MAX, PipePool


@pytest.fixture
def pool() -> Iterator[PipePool]:
    before = open_descriptors()
    pool = PipePool()
    yield pool
    assert pool.lent == 0
    pool.close()
    assert open_descriptors() <= before


def test_a_pipe_that_was_given_back_empty_is_lent_again(pool: PipePool) -> None:
    pipe = pool.take()
    assert pipe is not None
    pool.give_back(pipe, empty=True)
    assert pool.take() == pipe
    pool.give_back(pipe, empty=True)


def test_a_pipe_with_bytes_in_it_is_never_lent_again(pool: PipePool) -> None:
    pipe = pool.take()
    assert pipe is not None
    os.write(pipe.writer, b"somebody's")
    pool.give_back(pipe, empty=False)
    another = pool.take()
    assert another is not None
    with pytest.raises(BlockingIOError):
        os.read(another.reader, 1)
    pool.give_back(another, empty=True)


def test_neither_end_blocks_nor_reaches_a_child_process(pool: PipePool) -> None:
    pipe = pool.take()
    assert pipe is not None
    for fd in pipe:
        assert not os.get_blocking(fd)
        assert not os.get_inheritable(fd)
    pool.give_back(pipe, empty=True)


def test_no_more_than_the_cap_are_lent_and_few_are_kept(pool: PipePool) -> None:
    before = len(open_descriptors())
    lent = [pipe for pipe in (pool.take() for _ in range(PIPES_MAX)) if pipe is not None]
    assert len(lent) == PIPES_MAX
    assert pool.take() is None
    pool.give_back(lent.pop(), empty=True)
    again = pool.take()
    assert again is not None
    for pipe in [*lent, again]:
        pool.give_back(pipe, empty=True)
    assert len(open_descriptors()) - before == 2 * PIPES_FREE_MAX


def test_without_descriptors_there_is_no_pipe_and_no_error(
    pool: PipePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(flags: int) -> tuple[int, int]:
        raise OSError(errno.EMFILE, "")

    monkeypatch.setattr(os, "pipe2", none_left)
    assert pool.take() is None
    assert pool.lent == 0


def test_a_pipe_that_may_not_grow_is_lent_small(pool: PipePool, monkeypatch: pytest.MonkeyPatch) -> None:
    def may_not(fd: int, command: int, size: int) -> int:
        raise PermissionError

    monkeypatch.setattr(fcntl, "fcntl", may_not)
    pipe = pool.take()
    monkeypatch.undo()
    assert pipe is not None
    assert fcntl.fcntl(pipe.writer, fcntl.F_GETPIPE_SZ) < pipes.PIPE_BYTES
    pool.give_back(pipe, empty=True)
