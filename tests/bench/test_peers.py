"""The table of peers, how they are found, started and ended. No peer needs to be installed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from bench.bars import SMALL_POLICY
from bench.figures import GROUPS
from bench.peer import Installed, Peer, Place, find
from bench.peers import DEFAULT, PEERS
from bench.running import PORTS, PeerError, free_port, running

from bench import ours
from doorward.config.loading import load

LISTENS = (
    "import socket, sys; s = socket.create_server(('127.0.0.1', int(sys.argv[1])))\nwhile True: s.accept()"
)


def peer(program: str, *arguments: str, needs: tuple[str, str] | None = None) -> Peer:
    def prepare(place: Place) -> list[str]:
        return [*arguments, str(place.port)]

    return Peer("made-up", "forward", "as it is", program, ("--version",), prepare, needs=needs)


def test_every_default_peer_stands_in_the_table_and_takes_part_in_something() -> None:
    assert set(DEFAULT) - {"direct"} <= set(PEERS)
    assert all(one.takes_part_in and one.takes_part_in <= set(GROUPS) for one in PEERS.values())


@pytest.mark.parametrize("name", sorted(PEERS))
def test_every_peer_can_be_configured_in_an_empty_directory(name: str, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    arguments = PEERS[name].prepare(Place(own, 23_456, 23_457))
    written = "".join(path.read_text() for path in own.iterdir() if path.is_file())
    assert "23456" in written + " ".join(arguments)
    assert (PEERS[name].via == "forward") == ("23457" in written)


@pytest.mark.parametrize("name", [name for name in sorted(PEERS) if name.startswith("doorward")])
def test_doorwards_policies_are_whole_and_hold_a_hundred_rules(name: str, tmp_path: Path) -> None:
    PEERS[name].prepare(Place(tmp_path, 23_456, 0))
    rules = load(tmp_path / "doorward.toml").policy.rules
    assert len(rules) == ours.RULES == SMALL_POLICY
    assert rules[49].name == "bench"


def test_a_program_that_is_not_there_is_a_reason_to_leave_its_peer_out() -> None:
    assert "no-such-program is not installed" in str(find(peer("no-such-program"), {}))


def test_a_peer_without_a_file_that_it_needs_is_left_out() -> None:
    found = find(peer(sys.executable, needs=("/no/such/module.so", "the module")), {})
    assert found == "the module is not installed (/no/such/module.so)"


def test_a_program_can_be_named_and_tells_its_version() -> None:
    found = find(peer("some-proxy"), {"some-proxy": sys.executable})
    assert isinstance(found, Installed)
    assert found.version == f"Python {sys.version.split()[0]}"


def test_a_running_peer_listens_is_metered_and_ends(tmp_path: Path) -> None:
    installed = Installed(peer(sys.executable, "-c", LISTENS), sys.executable, "")
    with running(installed, tmp_path / "here") as up:
        assert up.target.port in PORTS
        assert up.target.server_port in PORTS
        assert (up.processes(), up.pss_bytes() > 0, up.cpu_seconds() >= 0) == (1, True, True)
        process = Path(f"/proc/{up.root}")
        assert process.exists()
    assert not process.exists()


def test_a_peer_that_ends_at_once_is_reported_with_its_last_words(tmp_path: Path) -> None:
    installed = Installed(
        peer(sys.executable, "-c", "print('no licence'); raise SystemExit(3)"), sys.executable, ""
    )
    with pytest.raises(PeerError, match="ended with status 3: no licence"):
        with running(installed, tmp_path / "here"):
            pass


def test_free_ports_lie_where_outgoing_connections_do_not() -> None:
    assert free_port() in PORTS
