"""The relay in plain Python: the reference that the native one must equal.

Each direction of a pair is a `Flow`: read, hold what could not be written, write, and never read more before
that is gone; so the buffer of a direction is one read, and back-pressure is the kernel's own. Small messages are
copied through one shared buffer; once a read fills it the flow splices through a pipe, and after some small
reads it copies again.
"""

from __future__ import annotations

import errno
import os
import socket
from typing import Final

from doorward.api.errors import OutOfResources, Side
from doorward.net.allowance import Allowance
from doorward.net.idle import IdleQueue
from doorward.net.pair import Flow, Pair, end_sending, side_of_sink, side_of_source, with_socket
from doorward.net.pipes import PIPE_BYTES, PipePool
from doorward.net.poller import Poller
from doorward.net.relay import Completion, Counts, End, EndedBy, Limits, OnCompletions, Reclaimed

COPY_BYTES: Final = 64 * 1024
# A read this small while splicing counts toward copying again, which is cheaper for messages.
SMALL_READ_BYTES: Final = 16 * 1024
SMALL_READS_BEFORE_COPYING: Final = 8
# Rounds of read and write that one flow may take before others have their turn.
ROUNDS_MAX: Final = 16

_PEER_GONE: Final = frozenset(
    {
        errno.ECONNRESET,
        errno.EPIPE,
        errno.ETIMEDOUT,
        errno.EHOSTUNREACH,
        errno.ENETUNREACH,
        errno.ECONNABORTED,
    }
)
# Never MORE: it corks the last bytes for 200 ms.
_SPLICE_FLAGS: Final = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK


class SinkBrokenError(Exception):
    """Writing failed: the error is the sink's, not the source's."""


class PythonRelay:
    """See `Relay`."""

    name = "python"

    def __init__(self, poller: Poller, on_completions: OnCompletions) -> None:
        self.poller = poller
        self._on_completions = on_completions
        self._pairs: dict[int, Pair] = {}
        self._next_id = 1
        self._view = memoryview(bytearray(COPY_BYTES))
        self._whole = (self._view,)
        self._pipes = PipePool()
        self._completions: list[Completion] = []
        self._unfinished: dict[Flow, None] = {}
        self._idle: IdleQueue[Pair] = IdleQueue(poller.loop, self._end_idle)

    def __len__(self) -> int:
        return len(self._pairs)

    def add(
        self,
        internal_fd: int,
        external_fd: int,
        limits: Limits,
        *,
        to_external: bytes = b"",
        to_internal: bytes = b"",
    ) -> int:
        """See `Relay.add`."""
        pair = Pair(self, self._next_id, internal_fd, external_fd, limits, self.poller.loop.time())
        self._next_id += 1
        if to_external:
            pair.outward.held = memoryview(to_external)
        if to_internal:
            pair.inward.held = memoryview(to_internal)
        try:
            self.poller.watch(internal_fd, pair)
            self.poller.watch(external_fd, pair)
        except OSError as error:
            self.poller.unwatch(internal_fd)
            pair.close(abortive=True)
            raise OutOfResources(os.strerror(error.errno or 0), side=Side.OURS) from None
        self._pairs[pair.id] = pair
        if limits.idle_s:
            self._idle.watch(pair, len(self._pairs))
        return pair.id

    def counts(self, pair_id: int) -> Counts | None:
        """See `Relay.counts`."""
        pair = self._pairs.get(pair_id)
        return Counts(pair.outward.moved, pair.inward.moved) if pair is not None else None

    def kill(self, pair_id: int) -> None:
        """See `Relay.kill`."""
        if (pair := self._pairs.get(pair_id)) is not None:
            self._end(pair, "killed", "ours", abortive=True)

    def reclaim(self, pair_id: int) -> Reclaimed | None:
        """See `Relay.reclaim`."""
        pair = self._pairs.pop(pair_id, None)
        if pair is None:
            return None
        pair.over = True
        outward, inward = pair.outward, pair.inward
        self.poller.unwatch(pair.internal)
        self.poller.unwatch(pair.external)
        to_external, to_internal = self._take_held(outward), self._take_held(inward)
        counts = Counts(outward.moved, inward.moved)
        return Reclaimed(pair.internal, pair.external, to_external, to_internal, counts)

    def close(self) -> None:
        """See `Relay.close`."""
        for pair in list(self._pairs.values()):
            self._end(pair, "killed", "ours", abortive=True)
        self._deliver()
        self._idle.close()
        self._pipes.close()

    def pump(self, flow: Flow) -> None:
        """Carry until the kernel says wait, or the turn is over."""
        pair = flow.pair
        try:
            for _ in range(ROUNDS_MAX):
                if pair.over or flow.done:
                    return
                if (flow.held is not None or flow.in_pipe) and not self._flush(flow):
                    return
                if flow.eof:
                    self._finish(flow)
                    return
                if not self._fill(flow):
                    return
        except SinkBrokenError as error:
            self._broken(pair, side_of_sink(flow), error.args[0])
            return
        except OSError as error:
            self._broken(pair, side_of_source(flow), error.errno or 0)
            return
        except Exception:  # our own bug: it ends this pair and no other
            self._end(pair, "failed", "ours", abortive=True)
            raise
        if not self._unfinished:
            self.poller.loop.call_soon(self._continue)
        self._unfinished[flow] = None

    def _continue(self) -> None:
        flows, self._unfinished = self._unfinished, {}
        for flow in flows:
            self.pump(flow)

    def _flush(self, flow: Flow) -> bool:
        """Write what is held; False when the sink cannot take all of it yet."""
        try:
            while flow.held is not None:
                count = os.write(flow.sink, flow.held)
                self._moved(flow, count)
                flow.held = flow.held[count:] if count < len(flow.held) else None
            while flow.in_pipe:
                assert flow.pipe is not None
                count = os.splice(flow.pipe.reader, flow.sink, flow.in_pipe, flags=_SPLICE_FLAGS)
                flow.in_pipe -= count
                self._moved(flow, count)
        except BlockingIOError:
            return False
        except OSError as error:
            raise SinkBrokenError(error.errno or 0) from None
        return True

    def _fill(self, flow: Flow) -> bool:
        """Read once and write what can be written at once; False when there is nothing to read yet."""
        bytes_max = self._allowed(flow) if flow.pair.limited else PIPE_BYTES
        if not bytes_max:
            self._return_pipe(flow)
            return False
        try:
            if flow.splicing and flow.spliceable and self._splice(flow, bytes_max):
                return True
            return self._copy(flow, bytes_max)
        except BlockingIOError:
            self._return_pipe(flow)
            return False

    def _copy(self, flow: Flow, bytes_max: int) -> bool:
        size = min(bytes_max, COPY_BYTES)
        count = os.readv(flow.source, self._whole if size == COPY_BYTES else (self._view[:size],))
        if not count:
            self._saw_eof(flow)
            return True
        flow.splicing = count == COPY_BYTES
        try:
            sent = os.write(flow.sink, self._view[:count])
        except BlockingIOError:
            sent = 0
        except OSError as error:
            raise SinkBrokenError(error.errno or 0) from None
        self._moved(flow, sent)
        if sent < count:
            flow.held = memoryview(bytes(self._view[sent:count]))
            return True
        # A short read emptied the socket, and what comes later comes with an edge of its own.
        return count == size or flow.ending

    def _splice(self, flow: Flow, bytes_max: int) -> bool:
        """One read into a pipe; False when splicing cannot be done, with nothing read."""
        if flow.pipe is None:
            flow.pipe = self._pipes.take()
            if flow.pipe is None:
                return False
        try:
            size = min(bytes_max, PIPE_BYTES)
            count = os.splice(flow.source, flow.pipe.writer, size, flags=_SPLICE_FLAGS)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            flow.spliceable = False  # this kind of socket cannot; copying can
            self._return_pipe(flow)
            return False
        if not count:
            return False  # an end of stream or an urgent mark: a copy can tell
        flow.in_pipe = count
        flow.small_reads = flow.small_reads + 1 if count < SMALL_READ_BYTES else 0
        if flow.small_reads >= SMALL_READS_BEFORE_COPYING:
            flow.splicing = False
            flow.small_reads = 0
        return True

    def _moved(self, flow: Flow, count: int) -> None:
        flow.moved += count
        pair = flow.pair
        pair.last = self.poller.now
        if flow.allowance is not None:
            flow.allowance.spend(count)

    def _allowed(self, flow: Flow) -> int:
        """How many bytes may be read now; 0 ends the turn, and a timer or the pair's end goes on from there."""
        limits = flow.pair.limits
        allowed = PIPE_BYTES
        if limits.bytes_max:
            allowed = min(allowed, limits.bytes_max - flow.moved)
            if allowed <= 0:
                return self._over_bytes_max(flow)
        if limits.bytes_per_second:
            allowed = min(allowed, self._allowance(flow, limits.bytes_per_second))
        return allowed

    def _over_bytes_max(self, flow: Flow) -> int:
        """The limit is reached. More bytes to come are a breach; an end of stream is not."""
        try:
            at_end = not with_socket(flow.source, lambda sock: sock.recv(1, socket.MSG_PEEK))
        except BlockingIOError:
            return 0
        if at_end:
            return 1
        self._end(flow.pair, "byte_limit", "ours", abortive=True)
        return 0

    def _allowance(self, flow: Flow, bytes_per_second: int) -> int:
        now = self.poller.loop.time()
        if flow.allowance is None:
            flow.allowance = Allowance(bytes_per_second, now)
        available = flow.allowance.available(now)
        if not available and not flow.allowance.waiting:
            flow.allowance.waiting = True
            self.poller.loop.call_later(flow.allowance.wait_s, self._resume, flow)
        return available

    def _resume(self, flow: Flow) -> None:
        if flow.allowance is not None:
            flow.allowance.waiting = False
        if not flow.pair.over:
            self.poller.now = self.poller.loop.time()
            self.pump(flow)

    def _saw_eof(self, flow: Flow) -> None:
        flow.eof = True
        pair = flow.pair
        if pair.first_eof is None:
            pair.first_eof = side_of_source(flow)
        self._return_pipe(flow)

    def _finish(self, flow: Flow) -> None:
        """All bytes of this direction are delivered, and so is now its end."""
        flow.done = True
        pair = flow.pair
        if pair.outward.done and pair.inward.done:
            self._end(pair, "closed", pair.first_eof or "ours", abortive=False)  # closing says FIN by itself
            return
        try:
            with_socket(flow.sink, end_sending)
        except OSError as error:
            if error.errno != errno.ENOTCONN:
                raise

    def ask_for_reset(self, flow: Flow) -> None:
        """A source may reset while nobody reads it: after its end of stream, or while its bytes find no reader."""
        number = with_socket(flow.source, lambda sock: sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
        if number:
            self._broken(flow.pair, side_of_source(flow), number)

    def _broken(self, pair: Pair, side: EndedBy, number: int) -> None:
        """A read or write failed on this side's socket: both sides are reset."""
        if number in _PEER_GONE:
            self._end(pair, "reset", side, abortive=True, number=number)
        else:
            self._end(pair, "failed", "ours", abortive=True, number=number)

    def _end(self, pair: Pair, end: End, by: EndedBy, *, abortive: bool, number: int = 0) -> None:
        if pair.over:
            return
        pair.over = True
        self._pairs.pop(pair.id, None)
        for flow in (pair.outward, pair.inward):
            self._return_pipe(flow)
        self.poller.forget(pair.internal)
        self.poller.forget(pair.external)
        pair.close(abortive=abortive)
        if not self._completions:
            self.poller.loop.call_soon(self._deliver)
        self._completions.append(Completion(pair.id, pair.outward.moved, pair.inward.moved, by, end, number))

    def _end_idle(self, pair: Pair) -> None:
        self._end(pair, "idle_timeout", "ours", abortive=True)

    def _deliver(self) -> None:
        completions, self._completions = self._completions, []
        if completions:
            self._on_completions(completions)

    def _return_pipe(self, flow: Flow) -> None:
        if flow.pipe is not None:
            self._pipes.give_back(flow.pipe, empty=not flow.in_pipe)
            flow.pipe = None
            flow.in_pipe = 0

    def _take_held(self, flow: Flow) -> bytes:
        """What was read and not written: the held rest of a copy, or what is still in the pipe."""
        held = bytes(flow.held) if flow.held is not None else b""
        flow.held = None
        while flow.pipe is not None and flow.in_pipe:
            data = os.read(flow.pipe.reader, flow.in_pipe)
            flow.in_pipe -= len(data)
            held += data
        self._return_pipe(flow)
        return held
