"""The helper: the one process with rights over the packet filter. It owns `table inet doorward` and nothing else.

A local socket, its file for one user only, and each caller asked who it is: nobody but that user is listened to. It
knows no policy file, no network but this socket, and no word but those of `messages`. If it ends, the table stays: what
the policy settles goes on, openings run out, and what needs the service comes up as before. If a caller ends, what it
had open is closed at once.
"""

from __future__ import annotations

import os
import selectors
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Final

from doorward.packetfilter.keeper import Keeper
from doorward.packetfilter.messages import (
    LENGTH,
    REQUEST_BYTES_MAX,
    BadMessage,
    Change,
    Count,
    Counted,
    Done,
    Flow,
    Load,
    Message,
    Noticed,
    Refused,
    Request,
    packed,
    read_request,
)
from doorward.packetfilter.nflog import FlowLog
from doorward.packetfilter.nft import NftRefused

CALLERS_MAX: Final = 64  # a service, its workers, and another one's beginning
SEND_TIMEOUT_S: Final = 5.0
NO_LOG: Final = "the kernel does not tell of what it settles (nfnetlink_log)"
_READ_BYTES: Final = 2**20
_CREDENTIALS: Final = struct.Struct("3i")


class HelperUnavailable(Exception):
    """The socket cannot be made. The text says why."""


Say = Callable[[str], None]


class Helper:
    """Serves until `stop`. Everything is done in one thread, one request after the other."""

    def __init__(
        self, keeper: Keeper, path: Path, user: int, say: Say, open_log: Callable[[int], FlowLog] = FlowLog
    ) -> None:
        """Bind the socket at `path` for the user with this number. Raises HelperUnavailable."""
        self._open_log = open_log
        self._log: FlowLog | None = None
        self._group: int | None = None
        self._keeper = keeper
        self._user = user
        self._say = say
        self._path = path
        self._selector = selectors.DefaultSelector()
        self._callers: dict[socket.socket, bytearray] = {}
        self._stopped = False
        self._waker, self._wake = socket.socketpair()
        self._wake.setblocking(False)
        try:
            self._listener = _listen(path, user)
        except OSError as error:
            self._waker.close()
            self._wake.close()
            self._selector.close()
            raise HelperUnavailable(f"cannot make the socket {path}: {error.strerror}") from None
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self._selector.register(self._waker, selectors.EVENT_READ, lambda: None)

    def serve(self) -> None:
        """Until `stop` is called, from a signal or another thread. The socket's file is gone afterwards."""
        self._keeper.begin()
        try:
            while not self._stopped:
                for key, _ in self._selector.select():
                    key.data()
        finally:
            self.close()

    def stop(self) -> None:
        """End `serve`. Idempotent."""
        self._stopped = True
        try:
            self._wake.send(b"\0")
        except OSError:
            pass

    def _listen_to(self, group: int | None) -> None:
        """Hear of flows by this group, and by no other. Raises NftRefused if the kernel cannot tell of them."""
        if group == self._group:
            return
        log = None
        if group is not None:
            try:
                log = self._open_log(group)
            except OSError as error:
                raise NftRefused(f"{NO_LOG}: {error.strerror}") from None
        if self._log is not None:
            self._selector.unregister(self._log.socket)
            self._log.socket.close()
        self._log, self._group = log, group
        if log is not None:
            self._selector.register(log.socket, selectors.EVENT_READ, lambda: self._tell(log.read()))

    def _tell(self, flows: tuple[Flow, ...]) -> None:
        if flows:
            for caller in tuple(self._callers):
                self._send(caller, Noticed(0, flows))

    def _accept(self) -> None:
        try:
            caller, _ = self._listener.accept()
        except OSError:
            return
        pid, user, _ = _CREDENTIALS.unpack(
            caller.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        )
        if user != self._user or len(self._callers) >= CALLERS_MAX:
            self._say(f"process {pid} of user {user} is not served")
            caller.close()
            return
        caller.settimeout(SEND_TIMEOUT_S)
        self._callers[caller] = bytearray()
        self._selector.register(caller, selectors.EVENT_READ, lambda: self._read(caller))

    def _read(self, caller: socket.socket) -> None:
        buffer = self._callers.get(caller)
        if buffer is None:
            return  # it was dropped while others were served
        try:
            data = caller.recv(_READ_BYTES)
        except OSError:
            data = b""
        if not data:
            self._drop(caller)
            return
        buffer += data
        while caller in self._callers and len(buffer) >= LENGTH.size:
            (length,) = LENGTH.unpack_from(buffer)
            if length > REQUEST_BYTES_MAX:
                self._say(
                    f"a message of {length} bytes, more than {REQUEST_BYTES_MAX}; the caller is dropped"
                )
                self._drop(caller)
            elif len(buffer) < LENGTH.size + length:
                return
            else:
                body = bytes(memoryview(buffer)[LENGTH.size : LENGTH.size + length])
                del buffer[: LENGTH.size + length]
                self._serve_one(caller, body)

    def _serve_one(self, caller: socket.socket, body: bytes) -> None:
        try:
            request = read_request(body)
        except BadMessage as error:
            self._say(f"a message that is none: {str(error)[:200]!a}; the caller is dropped")
            self._drop(caller)
            return
        try:
            answer = self._answer(caller, request)
        except NftRefused as error:
            self._say(f"refused: {error}")
            answer = Refused(request.number, str(error))
        self._send(caller, answer)

    def _answer(self, caller: socket.socket, request: Request) -> Message:
        match request:
            case Load(table=table, openings=openings):
                self._listen_to(table.capture.log_group)
                self._keeper.load(caller, table, openings)
                self._say(f"policy {table.revision!a} is in force")
            case Change(opened=opened, closed=closed):
                refused = self._keeper.change(caller, opened, closed)
                if refused:
                    return Refused(request.number, "an opening overlaps another", tuple(refused))
            case Count():
                return Counted(request.number, self._keeper.counters())
        return Done(request.number)

    def _send(self, caller: socket.socket, answer: Message) -> None:
        try:
            caller.sendall(packed(answer))
        except OSError:
            self._drop(caller)

    def _drop(self, caller: socket.socket) -> None:
        self._selector.unregister(caller)
        del self._callers[caller]
        caller.close()
        try:
            self._keeper.forget(caller)
        except NftRefused as error:
            self._say(f"openings of a caller that has gone are left to their timeouts: {error}")

    def close(self) -> None:
        """Nothing is left but the table. Idempotent."""
        if self._selector.get_map() is None:
            return
        for caller in tuple(self._callers):
            self._drop(caller)
        for key in tuple(self._selector.get_map().values()):
            sock = key.fileobj
            self._selector.unregister(sock)
            assert isinstance(sock, socket.socket)
            sock.close()
        self._wake.close()
        self._selector.close()
        self._path.unlink(missing_ok=True)


def _listen(path: Path, user: int) -> socket.socket:
    """A listening socket that only this user (and root) can open. Raises OSError."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if path.is_socket():
            _expect_nobody(path)
            path.unlink()
        before = os.umask(0o177)
        try:
            sock.bind(str(path))
        finally:
            os.umask(before)
        if user != os.getuid():
            os.chown(path, user, -1)
        sock.listen(CALLERS_MAX)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


def _expect_nobody(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return
    raise FileExistsError(0, "another helper answers on it")
