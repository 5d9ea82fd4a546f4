from __future__ import annotations

from pathlib import Path

import pytest
from tests.tools.trees import places, plant

from tools import layers


def breaches(root: Path, path: str, text: str) -> list[str]:
    plant(root, {f"src/doorward/{path}": text})
    return [breach.message for breach in layers.check(root)]


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("cli/serve.py", "import click\nfrom doorward.policy.model import Rule\n"),
        ("engine/engine.py", "from doorward.net import leg\nfrom doorward.engine.session import Session\n"),
        ("net/leg.py", "import socket\nimport doorward\nfrom doorward import __version__\n"),
        ("config/rules.py", "from doorward.policy.model import Rule\n"),
        (
            "wire/http/head.py",
            "import re\nimport httptools\nfrom doorward.wire.errors import ProtocolError\n",
        ),
        ("testing/harness.py", "from doorward.engine.chain import Chain\nfrom doorward.api import Socket\n"),
        ("__main__.py", "from doorward.cli.main import main\n"),
        ("policy/__init__.py", ""),
    ],
)
def test_a_room_may_use_itself_and_the_rooms_below(tmp_path: Path, path: str, text: str) -> None:
    assert breaches(tmp_path, path, text) == []


@pytest.mark.parametrize(
    ("path", "text", "message"),
    [
        ("net/leg.py", "from doorward.engine.session import Session", "'engine' stands above 'net'"),
        ("net/leg.py", "import doorward.cli.main", "'cli' stands above 'net'"),
        ("net/leg.py", "from doorward import service", "'service' stands above 'net'"),
        ("net/leg.py", "from doorward.record.model import Record", "'record' stands beside 'net'"),
        ("entry/mixed.py", "from doorward.filters import http", "'filters' stands beside 'entry'"),
        ("wire/basic.py", "from doorward.policy.model import Rule", "'policy' stands beside 'wire'"),
        (
            "engine/engine.py",
            "from doorward.testing import socket_pair",
            "does not use its own kit 'testing'",
        ),
        (
            "testing/kit.py",
            "from doorward.service.firewall import Firewall",
            "may import api, config, engine, net, policy, wire",
        ),
        (
            "record/store.py",
            "def f():\n    from doorward.engine import engine",
            "'engine' stands above 'record'",
        ),
        (
            "record/store.py",
            "import importlib\nimportlib.import_module('doorward.cli')",
            "'cli' stands above",
        ),
        ("record/store.py", "from . import files", "write the full name in place of '.'"),
        ("record/store.py", "from ..policy import model", "write the full name in place of '..policy'"),
        ("kitchen/sink.py", "", "room 'kitchen' has no place on the ladder"),
        ("helpers.py", "", "in no room"),
    ],
)
def test_an_import_upward_or_sideways_is_told(tmp_path: Path, path: str, text: str, message: str) -> None:
    (found,) = breaches(tmp_path, path, text + "\n")
    assert message in found


def test_an_import_for_the_type_checker_alone_counts_at_its_own_line(tmp_path: Path) -> None:
    text = """\
        from typing import TYPE_CHECKING

        if TYPE_CHECKING:
            from doorward.service.firewall import Firewall
        """
    plant(tmp_path, {"src/doorward/engine/session.py": text})
    assert places(layers.check(tmp_path)) == [("src/doorward/engine/session.py", 4)]


@pytest.mark.parametrize(
    ("path", "text", "message"),
    [
        ("wire/basic.py", "import socket", "'socket': hand in what it would give"),
        ("policy/schedule.py", "from time import time", "'time': hand in what it would give"),
        ("api/events.py", "import asyncio.events", "'asyncio.events': hand in"),
        ("wire/basic.py", "import httptools", "'httptools': the pure rooms have no dependencies"),
        ("policy/names.py", "import httptools", "no dependencies"),
        ("wire/http/head.py", "from h11 import Connection", "no dependencies"),
        ("policy/names.py", "def f():\n    return open('names')", "calls open()"),
    ],
)
def test_a_pure_room_reads_no_clock_file_or_socket(
    tmp_path: Path, path: str, text: str, message: str
) -> None:
    (found,) = breaches(tmp_path, path, text + "\n")
    assert message in found


def test_the_rungs_are_all_different_rooms() -> None:
    rooms = [room for rung in layers.LADDER for room in rung]
    assert len(rooms) == len(set(rooms))
    assert not set(rooms) & set(layers.BESIDE_THE_LADDER)
