"""git through the firewall: over HTTP with SOCKS and HTTP proxying, smart and dumb, and over ssh."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler
from pathlib import Path

import pytest
from tests.end_to_end.running import RunningFirewall
from tests.end_to_end.servers import http_server

Program = Callable[[str], str]
PROXIES = pytest.mark.parametrize("proxy", ["socks5h", "http"])
ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")},
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0",
    **{
        f"GIT_{who}_{what}": "test@localhost" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
    },
}


def git(program: Program, *arguments: str, cwd: Path, **environment: str) -> str:
    """Run git without anybody's configuration; its output. Fails the test if git fails."""
    done = subprocess.run(
        [program("git"), *arguments], cwd=cwd, capture_output=True, text=True, timeout=20, check=False,
        env=ENVIRONMENT | environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def repository(program: Program, tmp_path: Path) -> Path:
    """A bare repository with some history, one large file, and leave to be pushed to."""
    work, bare = tmp_path / "work", tmp_path / "site" / "repo.git"
    git(program, "init", "--quiet", "--initial-branch=main", str(work), cwd=tmp_path)
    (work / "large").write_bytes(os.urandom(3_000_000))
    for number in range(3):
        (work / "file").write_text(f"{number}\n")
        git(program, "add", ".", cwd=work)
        git(program, "commit", "--quiet", "--message", f"{number}", cwd=work)
    git(program, "clone", "--quiet", "--bare", str(work), str(bare), cwd=tmp_path)
    git(program, "config", "http.receivepack", "true", cwd=bare)
    git(program, "update-server-info", cwd=bare)
    return bare


class Backend(SimpleHTTPRequestHandler):
    """`git http-backend` as a CGI program (RFC 3875)."""

    root: Path
    git: str
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        environment = ENVIRONMENT | {
            "GIT_PROJECT_ROOT": str(self.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "HTTP_GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "REMOTE_USER": "test",
            "REMOTE_ADDR": "127.0.0.1",
        }
        done = subprocess.run(
            [self.git, "http-backend"], input=self._body(), capture_output=True, check=True, timeout=20,
            env=environment,
        )  # fmt: skip
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        fields = [line.split(": ", 1) for line in head.decode().split("\r\n")]
        status = next((value for name, value in fields if name == "Status"), "200 OK")
        self.send_response_only(int(status.split()[0]))
        for name, value in fields:
            if name != "Status":
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_POST(self) -> None:
        self.do_GET()

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", "0")))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the standard library's name
        """Quiet."""


@contextmanager
def smart_server(program: Program, repository: Path) -> Iterator[int]:
    """Serves the directory of the repository with git's own program."""
    handler = type("RepositoryBackend", (Backend,), {"root": repository.parent, "git": program("git")})
    with http_server(handler) as port:
        yield port


@PROXIES
def test_clone_and_push_over_smart_http(
    firewall: RunningFirewall, program: Program, repository: Path, tmp_path: Path, proxy: str
) -> None:
    option = ["-c", f"http.proxy={proxy}://{firewall.address}"]
    with smart_server(program, repository) as port:
        git(
            program,
            *option,
            "clone",
            "--quiet",
            f"http://code.localhost:{port}/repo.git",
            "copy",
            cwd=tmp_path,
        )
        copy = tmp_path / "copy"
        # Larger than http.postBuffer, so that git sends the pack in chunks.
        (copy / "more").write_bytes(os.urandom(3_000_000))
        git(program, "add", ".", cwd=copy)
        git(program, "commit", "--quiet", "--message", "more", cwd=copy)
        git(program, *option, "push", "--quiet", "origin", "main", cwd=copy)
        records = firewall.wait_for_records(1, lambda record: record.port == port)
    assert git(program, "rev-parse", "main", cwd=repository) == git(program, "rev-parse", "main", cwd=copy)
    git(program, "fsck", "--strict", cwd=repository)
    assert {(record.host, record.action) for record in records} == {("code.localhost", "allow")}


@PROXIES
def test_clone_over_dumb_http(
    firewall: RunningFirewall, program: Program, repository: Path, tmp_path: Path, proxy: str
) -> None:
    class Files(SimpleHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments, directory=str(repository.parent))  # type: ignore[arg-type]  # as socketserver calls it

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the standard library's name
            """Quiet."""

    with http_server(Files) as port:
        url = f"http://127.0.0.1:{port}/repo.git"
        git(
            program,
            "-c",
            f"http.proxy={proxy}://{firewall.address}",
            "clone",
            "--quiet",
            url,
            "copy",
            cwd=tmp_path,
        )
    assert (tmp_path / "copy" / "file").read_text() == "2\n"


def test_a_clone_that_policy_forbids_fails_and_git_shows_why(
    firewall: RunningFirewall, program: Program, tmp_path: Path
) -> None:
    done = subprocess.run(
        [program("git"), "-c", f"http.proxy=http://{firewall.address}", "clone", "http://169.254.169.254/x.git"],
        cwd=tmp_path, capture_output=True, text=True, timeout=20, check=False, env=ENVIRONMENT,
    )  # fmt: skip
    assert done.returncode != 0
    assert "403" in done.stderr
    [record] = firewall.wait_for_records(1, lambda record: record.address == "169.254.169.254")
    assert record.reason == "guarded_metadata"
