"""Unix sockets that lead past the network: which are hidden, and that they are."""

from __future__ import annotations

import os
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.capture.inside import launched, needs_namespaces

from doorward.capture import unix_sockets
from doorward.capture.unix_sockets import hidden


@pytest.fixture
def root() -> Iterator[Path]:
    """With a name short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="doorward-") as name:
        yield Path(name).resolve()


def bound(path: Path) -> socket.socket:
    path.parent.mkdir(parents=True, exist_ok=True)
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(path))
    sock.listen()
    return sock


def test_name_services_are_hidden_always_and_the_rest_if_asked_for(root: Path) -> None:
    with bound(root / "run/nscd/socket"), bound(root / "run/docker.sock"), bound(root / "run/user/7/bus"):
        assert hidden(private=False, environment={}, user=7, root=root) == [root / "run/nscd/socket"]
        found = hidden(private=True, environment={}, user=7, root=root)
        assert set(found) == {root / "run/nscd/socket", root / "run/docker.sock", root / "run/user/7"}


def test_what_is_not_there_is_not_hidden(root: Path) -> None:
    assert hidden(private=True, environment={"SSH_AUTH_SOCK": "/nonexistent"}, user=7, root=root) == []


@pytest.mark.parametrize("form", ["{}", "unix:path={},guid=123", "unix://{}"])
def test_what_variables_name_is_found(root: Path, form: str) -> None:
    with bound(root / "agent"):
        name = "DBUS_SESSION_BUS_ADDRESS" if "guid" in form else "SSH_AUTH_SOCK"
        found = list(unix_sockets._told({name: form.format(root / "agent")}))
        assert found == [root / "agent"]


@needs_namespaces
def test_a_hidden_socket_cannot_be_reached_and_stays_for_everybody_else(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with bound(root / "one/agent"), bound(root / "two/bus"), launched() as (launch, _):
        monkeypatch.setattr(unix_sockets, "hidden", lambda **asked: [root / "one/agent", root / "two"])
        code = (
            "import socket, sys\n"
            "for path in sys.argv[1:]:\n"
            "    try: socket.socket(socket.AF_UNIX).connect(path)\n"
            "    except OSError as error: continue\n"
            "    sys.exit(1)\n"
            "sys.exit(3)"
        )
        paths = [str(root / "one/agent"), str(root / "two/bus")]
        program = launch.hold([sys.executable, "-c", code, *paths])
        program.release()
        assert os.waitstatus_to_exitcode(os.waitpid(program.process, 0)[1]) == 3
        for path in paths:
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(path)


@needs_namespaces
def test_what_cannot_be_hidden_keeps_the_program_from_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from doorward.capture.program import ProgramNotRun

    monkeypatch.setattr(unix_sockets, "hidden", lambda **asked: [tmp_path / "gone"])
    with launched() as (launch, _):
        program = launch.hold(["touch", str(tmp_path / "ran")])
        with pytest.raises(ProgramNotRun):
            program.release()
    assert not (tmp_path / "ran").exists()
