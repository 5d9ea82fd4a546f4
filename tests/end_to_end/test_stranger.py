"""What the README promises to a stranger: the same steps, with the policy file of the repository."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

from tests.end_to_end.conftest import StartFirewall
from tests.end_to_end.running import REPOSITORY, RunningFirewall, wait_for
from tests.end_to_end.servers import http_server

Program = Callable[[str], str]

SHOUT = """
from doorward.api import Interest, StreamFilter


class Shout(StreamFilter):
    interest = Interest.of("http", "tcp/1024-65535")

    def server_data(self, data: bytes) -> bytes:
        return data.upper()
"""


def first_policy() -> str:
    """The repository's own, except that ports are free ones and the end is quick."""
    text = (REPOSITORY / "doorward.toml").read_text()
    for old, new in (("127.0.0.1:1080", "127.0.0.1:0"), ("tcp/8000-8999", "tcp/1024-65535")):
        assert old in text
        text = text.replace(old, new)
    return text + "\n[limits]\ndrain_timeout_s = 1\n"


def curl(
    program: Program, firewall: RunningFirewall, option: str, url: str
) -> subprocess.CompletedProcess[str]:
    command = [program("curl"), "-sS", "--noproxy", "", "--max-time", "10", option, firewall.address, url]
    return subprocess.run(command, capture_output=True, text=True, timeout=15, check=False)


def test_the_first_five_minutes(start_firewall: StartFirewall, program: Program) -> None:
    firewall = start_firewall(first_policy())
    for promised in (
        "is ready",
        "listening",
        "policy",
        "2 rules",
        "relay",
        "filters    none",
        "log",
        "curl",
        "explain",
    ):
        assert promised in firewall.printed()

    with http_server() as port:  # go through it, in both ways
        for option in ("--socks5-hostname", "--proxy"):
            assert curl(program, firewall, option, f"http://127.0.0.1:{port}/").stdout.startswith("GET /\n")

    metadata = "http://169.254.169.254/latest/meta-data/"  # be denied, and told why
    told = curl(program, firewall, "--proxy", metadata).stdout
    assert "169.254.169.254:80 is not allowed" in told
    assert "guarded_metadata" in told
    assert curl(program, firewall, "--socks5-hostname", metadata).returncode == 97
    explained = firewall.doorward("explain", "--to", "http://169.254.169.254/").stdout
    assert "DENY  guarded_metadata" in explained
    assert "web and code" in explained

    firewall.wait_for_records(4)  # find it in the log
    allowed = firewall.doorward("log", "action=allow").stdout.splitlines()
    denied = firewall.doorward("log", "action=deny", "to=169.254.169.254").stdout.splitlines()
    assert (len(allowed), len(denied)) == (2, 2)
    assert all("rule_allow" in line for line in allowed)
    assert all("guarded_metadata" in line for line in denied)

    good = firewall.policy_path.read_text()  # break the policy
    firewall.rewrite_policy(good.replace('"https"', '"htpps"'))
    firewall.errors_expected = True
    refused = firewall.doorward("reload")
    assert refused.returncode == 1
    assert 'unknown protocol "htpps"; did you mean "https"?' in refused.stderr
    assert "the old policy stays in force" in refused.stderr
    with http_server() as port:
        assert curl(program, firewall, "--proxy", f"http://127.0.0.1:{port}/").stdout.startswith("GET /\n")
    firewall.rewrite_policy(good)
    assert "is in force" in firewall.doorward("reload").stdout


def test_the_first_filter(start_firewall: StartFirewall, program: Program) -> None:
    firewall = start_firewall(
        first_policy(), files={"shout.py": SHOUT}, arguments=["--filter", "{home}/shout.py"]
    )
    wait_for(lambda: "filters    shout" in firewall.printed(), "it says that the filter is in force")
    with http_server() as port:
        for option in ("--socks5-hostname", "--proxy"):
            answer = curl(program, firewall, option, f"http://127.0.0.1:{port}/page").stdout
            assert answer.startswith("GET /PAGE\n")
