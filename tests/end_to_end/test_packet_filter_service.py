"""A gateway with everything: helper, service and policy. The kernel settles what it can; the rest comes up by name."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from tests.end_to_end.conftest import StartFirewall
from tests.end_to_end.gateways import Gateway
from tests.end_to_end.running import RunningFirewall, wait_for
from tests.end_to_end.wires import CLIENT, OTHER, OUTSIDE, SERVER, why_not, wires

from doorward.packetfilter.model import MARK

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not())

POLICY: Final = """
[listen]
proxy = ["10.1.0.1:1080"]
[limits]
drain_timeout_s = 1
connect_timeout_s = 5
[transparent]
interfaces = ["inner"]
networks = ["10.1.0.0/24", "fd01::/64"]
packet_filter = "{socket}"
method = "{method}"
[schedules.morning]
hours = ["00:00-12:00"]
[schedules.afternoon]
hours = ["12:00-24:00"]
[[rule]]
name = "no telnet"
action = "deny"
protocols = ["tcp/23"]
[[rule]]
name = "in the kernel"
action = "{action}"
from = ["10.1.0.0/24", "fd01::/64"]
to = ["10.2.0.2", "fd02::2"]
protocols = ["tcp/9000", "udp/9000"]
[[rule]]
name = "by the service"
action = "allow"
from = ["10.1.0.0/24", "fd01::/64"]
to = ["10.2.0.3", "fd02::3"]
protocols = ["tcp/9000", "udp/9000"]
when = ["morning"]
[[rule]]
name = "by the service, too"
action = "allow"
from = ["10.1.0.0/24", "fd01::/64"]
to = ["10.2.0.3", "fd02::3"]
protocols = ["tcp/9000", "udp/9000"]
when = ["afternoon"]
"""


class Filtered(Gateway):
    """A gateway with a helper."""

    def __init__(self, *arguments: object, path: Path) -> None:
        super().__init__(*arguments)  # type: ignore[arg-type]
        self.path = path
        self.help()

    def help(self) -> None:
        command = [sys.executable, "-m", "doorward", "packet-filter", "--socket", str(self.path)]
        self.helper = self.wires.start("gateway", *command, "--user", str(os.getuid()))
        assert self.helper.stdout is not None
        said = self.helper.stdout.readline()
        assert b"answers user" in said, said + self.helper.stdout.read()

    def serving(self, **words: str) -> RunningFirewall:
        """A firewall with this policy."""
        return self._start(self.policy(**words), prefix=self.wires.enter("gateway"))

    def policy(self, action: str = "allow", method: str = "tproxy") -> str:
        return POLICY.format(socket=self.path, action=action, method=method)

    def doorward(self, *words: str) -> subprocess.CompletedProcess[str]:
        return self.wires.run("gateway", sys.executable, "-m", "doorward", *words, check=False)


@pytest.fixture
def gateway(start_firewall: StartFirewall, tmp_path: Path) -> Iterator[Filtered]:
    with wires() as made:
        made.forward()
        made.lead_here(MARK)
        found = Filtered(made, start_firewall, path=tmp_path / "nft.sock")
        found.serve()
        yield found


@pytest.mark.parametrize("method", ["tproxy", "redirect"])
def test_the_kernel_settles_what_it_can_and_the_service_has_the_rest(gateway: Filtered, method: str) -> None:
    firewall = gateway.serving(method=method)
    for version in (4, 6):
        for kind in ("tcp", "udp"):
            assert gateway.ask(kind, SERVER[version]) == OUTSIDE[version]
            assert gateway.ask(kind, OTHER[version]) == OUTSIDE[version]
        assert gateway.ask("tcp", SERVER[version], 23) == "ConnectionRefusedError"
        assert gateway.ask("tcp", SERVER[version], 80) == "ConnectionRefusedError"
    records = firewall.wait_for_records(2, lambda r: r.transport == "tcp" and r.entry == "transparent")
    assert {r.address for r in records} == set(OTHER.values()), "the rest did not come up"
    settled = firewall.wait_for_records(8, lambda r: r.entry == "kernel")
    assert sorted((r.action, r.rule, r.port, r.operation) for r in settled if r.rule) == [
        ("allow", "in the kernel", 9000, "connect"),
        ("allow", "in the kernel", 9000, "connect"),
        ("allow", "in the kernel", 9000, "destination"),
        ("allow", "in the kernel", 9000, "destination"),
        ("deny", "no telnet", 23, "connect"),
        ("deny", "no telnet", 23, "connect"),
    ]
    assert {(r.reason, r.client_address) for r in settled if not r.rule} == {
        ("default_deny", host) for host in CLIENT.values()
    }
    told = json.loads(gateway.doorward("status", "--json", "-p", str(firewall.policy_path)).stdout)["kernel"]
    assert told == {"allow: in the kernel": 4, "deny: no telnet": 2, "deny: default_deny": 2, "up": 4}
    assert (
        "kernel     2 deny: no telnet" in gateway.doorward("status", "-p", str(firewall.policy_path)).stdout
    )


def test_without_the_service_only_what_the_kernel_settles_goes_on(gateway: Filtered) -> None:
    firewall = gateway.serving()
    assert gateway.peers("client", "ask", "tcp", "10.1.0.1", "1080") != "ConnectionRefusedError", (
        "our listener"
    )
    assert gateway.ask("tcp", "10.1.0.1", 1081) == "ConnectionRefusedError", "the transparent port itself"
    firewall.kill()
    for version in (4, 6):
        assert gateway.ask("tcp", SERVER[version]) == OUTSIDE[version]
        assert gateway.ask("tcp", OTHER[version]) == "ConnectionRefusedError"
        assert gateway.ask("udp", OTHER[version]) in ("OSError", "PermissionError")
    gateway.serving()
    assert gateway.ask("tcp", OTHER[4]) == OUTSIDE[4]


def test_without_the_helper_the_policy_stays_and_a_new_helper_takes_over(gateway: Filtered) -> None:
    firewall = gateway.serving()
    firewall.errors_expected = True
    gateway.helper.send_signal(signal.SIGKILL)
    gateway.helper.wait()
    assert gateway.ask("tcp", SERVER[4]) == gateway.ask("udp", OTHER[4]) == OUTSIDE[4]
    assert gateway.ask("tcp", SERVER[4], 23) == "ConnectionRefusedError"
    firewall.policy_path.write_text(gateway.policy("deny"))
    refused = gateway.doorward("reload", "-p", str(firewall.policy_path))
    assert refused.returncode
    assert "helper" in refused.stderr + refused.stdout
    assert gateway.ask("tcp", SERVER[4]) == OUTSIDE[4], "nothing has changed"
    gateway.help()
    wait_for(lambda: any("is back" in str(line) for line in firewall.told()), "the helper taken over")
    assert gateway.doorward("reload", "-p", str(firewall.policy_path)).returncode == 0
    assert gateway.ask("tcp", SERVER[4]) == "ConnectionRefusedError"
    assert gateway.ask("tcp", OTHER[4]) == OUTSIDE[4]


def test_what_is_loaded_is_what_the_policy_says(gateway: Filtered) -> None:
    firewall = gateway.serving()
    policy = str(firewall.policy_path)
    same = gateway.doorward("nft", "diff", "-p", policy)
    assert (same.returncode, same.stdout, same.stderr) == (0, "", "")
    firewall.policy_path.write_text(gateway.policy("deny"))
    differs = gateway.doorward("nft", "diff", "-p", policy)
    assert differs.returncode == 1
    assert '-        comment "allow: in the kernel"' in differs.stdout
    assert '+        comment "deny: in the kernel"' in differs.stdout
    gateway.wires.nft(gateway.doorward("nft", "show", "-p", policy).stdout)
    assert gateway.doorward("nft", "diff", "-p", policy).returncode == 0


def test_a_helper_that_is_not_there_is_a_start_refused(gateway: Filtered) -> None:
    gateway.helper.kill()
    gateway.helper.wait()
    with pytest.raises(AssertionError, match="no packet filter's helper answers"):
        gateway.serving()
