"""What a program has used, as a policy that allows it and nothing else, and as a test of that policy.

Names are kept where the program has asked for names, addresses where it had only those. What guards close (loopback,
metadata, our own addresses) is not learnt: it was refused, and is told.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from doorward.policy.evaluation import Policy
from doorward.policy.model import Action, Rule

if TYPE_CHECKING:
    from doorward.config.model import Configuration
    from doorward.engine.engine import Recorder
    from doorward.record.model import Record

# Different destinations that are kept apart. Whoever talks to more needs rules with networks, written by hand.
USED_MAX: Final = 5_000
_AUDIT: Final = "audit"
_OPERATIONS: Final = ("connect", "destination")
_TEST: Final = '''"""What was used while this policy was learnt is allowed, and nothing else. Run it with pytest."""

import json
import subprocess
from pathlib import Path

import pytest

POLICY = Path(__file__).with_name({policy})
USED = {used}


def action(to: str) -> str:
    """What the policy answers: allow, deny, or needs (the address of a name, say)."""
    words = ["doorward", "explain", "--policy", str(POLICY), "--no-filters", "--json", "--to", to]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return str(json.loads(done.stdout)["action"])


@pytest.mark.parametrize("to", USED)
def test_what_was_used_is_allowed(to: str) -> None:
    assert action(to) != "deny"


@pytest.mark.parametrize("to", ["tcp://nobody.invalid:443", "tcp://198.51.100.1:443", "udp://198.51.100.1:443"])
def test_nothing_else_is(to: str) -> None:
    assert action(to) == "deny"
'''


def allowing(configuration: Configuration) -> Configuration:
    """The same, but everything is allowed that no guard closes. Upstreams and filters are as they were."""
    policy = Policy([Rule(_AUDIT, Action.ALLOW)], configuration.revision)
    return replace(configuration, policy=policy)


class Learning:
    """A recorder that remembers what was used on its way to the log. `more` counts what it had no room for."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._used: dict[tuple[str, str], None] = {}
        self.more = 0
        self.refuses = recorder.refuses

    def __len__(self) -> int:
        return len(self._used)

    def append(self, record: Record) -> None:
        """See `Recorder`."""
        host = record.host or record.address
        if record.action == "allow" and record.operation in _OPERATIONS and record.port and host:
            used = (host, f"{record.transport}/{record.port}")
            if used in self._used or len(self._used) < USED_MAX:
                self._used[used] = None
            else:
                self.more += 1
        self._recorder.append(record)

    def policy(self, command: str) -> str:
        """The text of a policy file; one rule for each host. `command` stands above it: without arguments."""
        hosts: dict[str, list[str]] = {}
        for host, protocol in self._used:
            hosts.setdefault(host, []).append(protocol)
        parts = [f"# Learnt from: {json.dumps(command)}\n# What is not allowed here is refused.\n"]
        for number, (host, protocols) in enumerate(sorted(hosts.items()), 1):
            quoted = ", ".join(json.dumps(protocol) for protocol in sorted(protocols))
            parts.append(
                f"\n[[rule]]\nname = {json.dumps(f'learnt {number}: {host[:150]}')}\n"
                f'action = "allow"\nto = [{json.dumps(host)}]\nprotocols = [{quoted}]\n'
            )
        return "".join(parts)

    def test(self, policy: Path) -> str:
        """The text of a test of that policy, to stand beside it."""
        used = [_url(host, protocol) for host, protocol in sorted(self._used)]
        return _TEST.format(policy=json.dumps(policy.name), used=json.dumps(used, indent=4))


def _url(host: str, protocol: str) -> str:
    transport, _, port = protocol.partition("/")
    return f"{transport}://[{host}]:{port}" if ":" in host else f"{transport}://{host}:{port}"
