from __future__ import annotations

import json
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import Run
from tests.entry.filters import WATCH, use
from tests.entry.world import HEAD, user

from doorward.api.errors import NameNotFound, Side
from doorward.net.resolve import Addresses, Resolver

POLICY = (
    HEAD
    + user("kim", "right")
    + """
[schedules.office]
days = ["mon-fri"]
hours = ["08:00-17:00"]
[[filter]]
name = "watch"
use = "watch.py"
protocols = ["http"]
[[rule]]
name = "no games"
action = "deny"
to = ["games.example"]
protocols = ["any"]
[[rule]]
name = "office web"
action = "allow"
protocols = ["http", "https"]
when = ["office"]
to = ["192.0.2.0/24", "web.example"]
[[rule]]
name = "kim anywhere"
action = "allow"
users = ["kim"]
protocols = ["ssh"]
[[rule]]
name = "sh mails"
action = "allow"
process = ["sh", "/nowhere/mailer"]
protocols = ["tcp/25"]
"""
)


@pytest.fixture(autouse=True)
def policy(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "doorward.toml").write_text(POLICY)
    (home / "watch.py").write_text(WATCH)

    async def resolve(self: Resolver, name: str) -> Addresses:
        known = {"web.example": ["198.51.100.7", "2001:db8::7"], "inside.example": ["127.0.0.1"]}
        if name not in known:
            raise NameNotFound("no such name", side=Side.EXTERNAL)
        return tuple(map(ip_address, known[name]))

    monkeypatch.setattr(Resolver, "resolve", resolve)


def explained(run: Run, to: str, *words: str) -> dict[str, Any]:
    result = run("explain", "--json", "--to", to, *words)
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert isinstance(told, dict)
    return told


def test_an_allowed_destination_names_the_rule_its_line_and_the_filters(run: Run) -> None:
    told = explained(run, "http://192.0.2.1/", "--at", "wed 10:00")
    line = POLICY.splitlines().index('name = "office web"')
    assert (told["action"], told["reason"], told["rule"]) == ("allow", "rule_allow", "office web")
    assert abs(told["line"] - line) <= 1
    assert told["filters"] == ["watch"]
    output = run("explain", "--to", "http://192.0.2.1/", "--at", "wed 10:00").output
    assert "ALLOW" in output
    assert "filters that would join: watch" in output


def test_no_filter_of_another_protocol_joins(run: Run) -> None:
    assert explained(run, "https://192.0.2.1/", "--at", "wed 10:00")["filters"] == []
    assert explained(run, "http://192.0.2.1/", "--at", "wed 10:00", "--no-filters")["filters"] == []


def test_the_time_decides(run: Run) -> None:
    told = explained(run, "http://192.0.2.1/", "--at", "sun 10:00")
    assert (told["action"], told["reason"]) == ("deny", "default_deny")
    tried = {t["rule"]: t for t in told["judgements"][0]["tried"]}
    assert tried["office web"]["field"] == "when"
    assert told["filters"] == []


@pytest.mark.parametrize("process", ["sh", "/bin/sh", "/nowhere/mailer"])
def test_a_program_is_found_as_it_would_be_launched(run: Run, process: str) -> None:
    assert explained(run, "tcp://203.0.113.1:25", "--process", process)["rule"] == "sh mails"
    output = run("explain", "--to", "tcp://203.0.113.1:25", "--process", process).output
    assert "launched as" in output
    assert process in output


@pytest.mark.parametrize("words", [(), ("--process", "/nowhere/else"), ("--process", "mailer")])
def test_another_program_or_none_is_told_what_the_rule_wants(run: Run, words: tuple[str, ...]) -> None:
    told = explained(run, "tcp://203.0.113.1:25", *words)
    assert told["action"] == "deny"
    tried = {t["rule"]: t for t in told["judgements"][0]["tried"]}
    assert (tried["sh mails"]["field"], tried["sh mails"]["wanted"]) == ("process", "/nowhere/mailer, sh")


def test_a_denied_name_is_not_looked_up(run: Run) -> None:
    told = explained(run, "tcp://games.example:443")
    assert (told["action"], told["reason"], told["rule"], told["lookup"]) == (
        "deny", "rule_deny", "no games", None
    )  # fmt: skip


def test_an_unidentified_client_would_be_asked_and_a_user_is_judged(run: Run) -> None:
    told = explained(run, "ssh://203.0.113.1")
    assert (told["action"], told["needs"], told["rule"]) == ("needs", "user", "kim anywhere")
    assert "needs to know the user" in run("explain", "--to", "ssh://203.0.113.1").output
    assert explained(run, "ssh://203.0.113.1", "--user", "kim")["action"] == "allow"


def test_each_address_of_a_name_is_judged(run: Run) -> None:
    told = explained(run, "https://web.example", "--at", "wed 10:00")
    assert told["action"] == "allow"
    assert [j["address"] for j in told["judgements"]] == ["198.51.100.7", "2001:db8::7"]


def test_a_guarded_address_says_so_also_behind_a_name_and_in_disguise(run: Run) -> None:
    for to in ("tcp://169.254.169.254:80", "tcp://127.1:80", "tcp://[::ffff:127.0.0.1]:80"):
        told = explained(run, to)
        assert told["action"] == "deny"
        assert told["reason"].startswith("guarded_")
    told = explained(run, "ssh://inside.example", "--user", "kim")
    assert told["reason"] == "guarded_loopback"
    assert "closed unless" in run("explain", "--to", "tcp://127.1:80").output


def test_a_name_without_an_address_says_so(run: Run) -> None:
    told = explained(run, "ssh://nowhere.example", "--user", "kim")
    assert (told["action"], told["lookup"]) == ("needs", "name_not_found: no such name")
    assert "which failed" in run("explain", "--to", "ssh://nowhere.example", "--user", "kim").output


LISTENING = """
[[filter]]
name = "arrivals"
use = "arrivals.py"
[[rule]]
name = "names"
action = "allow"
protocols = ["dns"]
[[rule]]
name = "transfers"
action = "allow"
to = ["198.51.100.0/24"]
protocols = ["tcp-in/5000-5100"]
[[rule]]
name = "unwatched"
action = "allow"
to = ["203.0.113.0/24"]
protocols = ["tcp-in/5000-5100"]
filters.arrivals = false
[[rule]]
name = "anything"
action = "allow"
protocols = ["any"]
"""
ARRIVALS = """
from doorward.api import EventKind, Interest, StreamFilter

class Arrivals(StreamFilter):
    interest = Interest.of(events=[EventKind.ACCEPT])
"""


def test_datagrams_and_peers_that_arrive_are_judged_too(run: Run, home: Path) -> None:
    (home / "doorward.toml").write_text(HEAD + LISTENING)
    (home / "arrivals.py").write_text(ARRIVALS)
    told = explained(run, "udp://192.0.2.53:53")
    assert (told["rule"], told["filters"]) == ("names", [])
    assert explained(run, "udp://192.0.2.53:54")["rule"] == "anything"
    told = explained(run, "tcp-in://198.51.100.7:5000")
    assert (told["rule"], told["filters"]) == ("transfers", ["arrivals"])
    told = explained(run, "tcp-in://203.0.113.7:5000")
    assert (told["rule"], told["filters"]) == ("unwatched", [])
    told = explained(run, "tcp-in://192.0.2.7:5000")
    assert (told["reason"], told["filters"]) == ("default_deny", [])
    assert explained(run, "udp-in://*:5000")["reason"] == "default_deny"


def test_a_port_that_nobody_has_come_to_yet_waits_for_its_peer(run: Run, home: Path) -> None:
    (home / "doorward.toml").write_text(HEAD + LISTENING)
    (home / "arrivals.py").write_text(ARRIVALS)
    told = explained(run, "tcp-in://*:5000")
    assert (told["needs"], told["rule"], told["filters"]) == ("address", "transfers", ["arrivals"])
    output = run("explain", "--to", "tcp-in://*:5000").output
    assert output.startswith("tcp-in://*:5000 from 127.0.0.1")
    assert "judges each peer that arrives" in output
    assert "filters that would join: arrivals" in output


@pytest.mark.parametrize(
    "words",
    [
        ["--to", "nonsense"],
        ["--to", "tcp://a b:1"],
        ["--to", "tcp://a.test:0"],
        ["--to", "tcp://a.test:1", "--user", "nobody"],
        ["--to", "tcp://a.test:1", "--at", "soon"],
        ["--to", "tcp://a.test:1", "--at", ""],
        ["--to", "tcp://a.test:1", "--from", "here"],
    ],
)
def test_words_that_mean_nothing_are_status_2(run: Run, words: list[str]) -> None:
    result = run("explain", *words)
    assert result.exit_code == 2
    assert result.stderr.startswith("doorward: ")


@pytest.mark.parametrize("option", ["--to", "--user", "--at", "--from"])
def test_nothing_that_was_typed_can_steer_a_terminal(run: Run, option: str) -> None:
    words = {"--to": "tcp://a.test:1", option: "tcp://\x1b[2J\x07:80"}
    result = run("explain", *(word for pair in words.items() for word in pair))
    assert result.exit_code == 2
    assert "\x1b" not in result.output
    assert "\x07" not in result.output


def test_a_rule_s_name_cannot_steer_a_terminal(run: Run, home: Path) -> None:
    evil = '[[rule]]\nname = "a\\u001b[2J"\naction = "deny"\nprotocols = ["any"]\n'
    (home / "doorward.toml").write_text(HEAD + evil)
    assert "\x1b[2J" not in run("explain", "--to", "tcp://192.0.2.1:80").output


def test_a_filter_that_cannot_be_loaded_is_said(run: Run, home: Path) -> None:
    (home / "doorward.toml").write_text(POLICY + use("broken"))
    (home / "broken.py").write_text("x = 1")
    result = run("explain", "--to", "http://192.0.2.1/")
    assert result.exit_code == 1
    assert "broken.py" in result.stderr


ROUTES = """
[upstreams.corp]
kind = "http"
address = "proxy.example:3128"
[[route]]
name = "the web"
protocols = ["https"]
via = ["corp", "direct"]
"""


@pytest.mark.parametrize(
    ("port", "told", "via"),
    [
        (443, 'way: corp, then direct (route "the web")', ["corp", "direct"]),
        (80, "way: direct (no route matches)", ["direct"]),
    ],
)
def test_the_way_through_upstreams_is_told(
    run: Run, home: Path, port: int, told: str, via: list[str]
) -> None:
    (home / "doorward.toml").write_text(POLICY + ROUTES)
    asked = ["explain", "--at", "mon 10:00", "--to", f"192.0.2.7:{port}"]
    assert told in run(*asked).output
    assert json.loads(run(*asked, "--json").output)["via"] == via


@pytest.mark.parametrize(
    ("to", "words", "reason"),
    [
        ("udp://192.0.2.7:53", ["udp"], "upstream_no_udp"),
        ("tcp-in://192.0.2.7:53", ["tcp-in"], "upstream_no_bind"),
        ("tcp-in://192.0.2.7:53", ["tcp"], "upstream_no_bind"),
        ("tcp-in://*:53", ["tcp-in"], "upstream_no_bind"),
        ("tcp://192.0.2.7:53", ["tcp"], None),
        ("udp://192.0.2.7:53", ["tcp", "udp-in"], None),
    ],
)
def test_what_no_upstream_carries_is_said_to_be_refused(
    run: Run, home: Path, to: str, words: list[str], reason: str | None
) -> None:
    route = f'[[route]]\nname = "these"\nprotocols = {json.dumps(words)}\nvia = ["corp", "direct"]\n'
    rule = '[[rule]]\nname = "all"\naction = "allow"\nprotocols = ["tcp", "udp", "tcp-in"]\n'
    (home / "doorward.toml").write_text(rule + ROUTES.partition("[[route]]")[0] + route)
    assert json.loads(run("explain", "--to", to, "--json").output)["stopped"] == reason
    told = run("explain", "--to", to).output
    assert (f"refused, {reason}" in told) if reason else ("refused" not in told)


def test_without_routes_there_is_no_word_of_ways(run: Run) -> None:
    assert "way:" not in run("explain", "--at", "mon 10:00", "--to", "192.0.2.7:443").output
