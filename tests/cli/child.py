"""The real program as a child process."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

PATIENCE_S: Final = 15.0
SOURCE: Final = Path(__file__).resolve().parents[2] / "src"
COMMAND: Final = (sys.executable, "-m", "doorward")


def environment(**more: str) -> dict[str, str]:
    """Nothing of whoever runs the tests: no policy, no home, no colours."""
    keep = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
    return {**keep, "PYTHONPATH": str(SOURCE), "HOME": "/nonexistent", **more}


def doorward(
    *words: str | Path, home: Path, given: str | None = None, **more: Any
) -> subprocess.CompletedProcess[str]:
    """Run one command to its end, in the directory `home`."""
    return subprocess.run(
        [*COMMAND, *map(str, words)],
        cwd=home,
        env=environment(),
        input=given,
        text=True,
        capture_output=True,
        timeout=PATIENCE_S,
        check=False,
        **more,
    )


class Child:
    """A running `doorward` command whose output is read as it comes."""

    def __init__(self, words: Sequence[str | Path], home: Path) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, *map(str, words)],
            cwd=home,
            env=environment(PYTHONUNBUFFERED="1"),
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.output: list[str] = []
        self.errors: list[str] = []
        self._changed = threading.Condition()
        self._readers = [
            threading.Thread(target=self._read, args=(self.process.stdout, self.output)),
            threading.Thread(target=self._read, args=(self.process.stderr, self.errors)),
        ]
        for reader in self._readers:
            reader.start()

    def wait_for(self, pattern: str, *, error: bool = False) -> re.Match[str]:
        """The first line of the output, or of the errors, in which the pattern is found."""
        lines = self.errors if error else self.output

        def found() -> re.Match[str] | None:
            return next((match for line in lines if (match := re.search(pattern, line))), None)

        with self._changed:
            self._changed.wait_for(lambda: found() or self._over(), PATIENCE_S)
            match = found()
        assert match is not None, (pattern, self.output, self.errors)
        return match

    def end(self) -> int:
        """Wait for its end; its exit status."""
        status = self.process.wait(PATIENCE_S)
        for reader in self._readers:
            reader.join()
        return status

    def close(self) -> None:
        """Whatever it is doing, it ends now."""
        if self.process.poll() is None:
            self.process.kill()
        self.end()
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()

    def _read(self, stream: IO[str], lines: list[str]) -> None:
        for line in stream:
            with self._changed:
                lines.append(line)
                self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()

    def _over(self) -> bool:
        return self.process.poll() is not None and not any(reader.is_alive() for reader in self._readers)


@contextmanager
def running(*words: str | Path, home: Path) -> Iterator[Child]:
    child = Child(words, home)
    try:
        yield child
    finally:
        child.close()


@contextmanager
def serving(home: Path, *words: str | Path) -> Iterator[tuple[Child, int]]:
    """`doorward serve` in a directory with a doorward.toml, and the port it listens on."""
    with running("serve", *words, home=home) as child:
        port = int(child.wait_for(r"listening +127\.0\.0\.1:(\d+)")[1])
        child.wait_for("--follow")  # the last line: signals are handled from here on
        yield child, port


@contextmanager
def tunnel(port: int) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A SOCKS5 tunnel through the child to a server of the test's; both ends."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(PATIENCE_S)
        client = connect_through(port, listening.getsockname()[1])
        with client:
            outer, _ = listening.accept()
            with outer:
                outer.settimeout(PATIENCE_S)
                assert _exactly(client, 12)[:4] == b"\x05\x00\x05\x00"
                yield client, outer


def connect_through(port: int, target_port: int) -> socket.socket:
    """A client that has asked for 127.0.0.1 and this port."""
    client = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
    client.sendall(b"\x05\x01\x00\x05\x01\x00\x01\x7f\x00\x00\x01" + target_port.to_bytes(2, "big"))
    return client


def reply_code(port: int, target_port: int) -> int:
    """What a client that asks for this is told."""
    with connect_through(port, target_port) as client:
        return _exactly(client, 12)[3]


def _exactly(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = sock.recv(count - len(data))
        assert piece, data
        data += piece
    return data
