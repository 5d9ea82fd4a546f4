from __future__ import annotations

import os
import time
from ipaddress import ip_network
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from doorward.config.loading import check, load, read, read_bytes
from doorward.config.model import ListenAddress
from doorward.config.problems import ConfigurationRefused
from doorward.config.source import FILE_BYTES_MAX
from doorward.policy.model import Action, PortRange, Window

GOLDEN = Path(__file__).parent.parent / "golden" / "config"
SEPARATOR = "----------\n"
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("case", sorted(GOLDEN.glob("*.txt")), ids=lambda case: case.stem)
def test_every_mistake_is_reported_as_the_golden_file_says(
    case: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Write the expected part anew with DOORWARD_GOLDEN=write, then read the difference."""
    policy, _, expected = case.read_text().partition(SEPARATOR)
    monkeypatch.chdir(tmp_path)
    Path("doorward.toml").write_text(policy)
    found = "".join(f"{problem}\n" for problem in check(Path("doorward.toml"))).replace(
        str(tmp_path), "DIRECTORY"
    )
    if os.environ.get("DOORWARD_GOLDEN") == "write":
        case.write_text(policy + SEPARATOR + found)
    else:
        assert found == expected


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_a_policy_becomes_objects_in_its_order(tmp_path: Path, line_end: str) -> None:
    policy = (GOLDEN / "sample_is_clean.txt").read_text().partition(SEPARATOR)[0]
    path = tmp_path / "doorward.toml"
    path.write_bytes(policy.replace("\n", line_end).encode())
    configuration = load(path)
    assert configuration.listen == (ListenAddress("127.0.0.1", 1080),)
    assert configuration.log.path == tmp_path / "var/doorward.db"
    assert configuration.control_path == tmp_path / "var/doorward.sock"
    assert configuration.users["kim"].groups == {"engineering", "operators"}
    first, last = configuration.policy.rules
    assert (first.name, first.action, first.line) == ("engineers fetch code", Action.ALLOW, 16)
    assert first.sources is not None
    assert first.sources[:2] == (ip_network("192.168.0.0/16"), ip_network("fd00::/8"))
    assert first.sources[-1] == ip_network("127.0.0.0/8")
    assert first.to_names == ("github.com", "*.githubusercontent.com", ".example.org")
    assert first.to_networks == tuple(map(ip_network, ("203.0.113.0/24", "192.0.2.1", "2001:db8::/32")))
    assert first.ports == (
        PortRange("tcp", 443, 443),
        PortRange("tcp", 8000, 8999),
        PortRange("udp", 53, 53),
        PortRange("tcp", 22, 22),
    )
    assert first.users == frozenset({"kim"})
    assert first.groups == frozenset({"engineering", "operators"})
    assert first.windows is not None
    assert Window(420, 1080) in first.windows
    assert (last.action, last.line) == (Action.DENY, 24)
    unrestricted = (
        last.sources,
        last.to_networks,
        last.to_names,
        last.ports,
        last.users,
        last.groups,
        last.windows,
    )
    assert unrestricted == (None,) * 7


def test_the_revision_follows_every_byte_of_the_file(tmp_path: Path) -> None:
    one, two = (read_bytes(data, tmp_path / "p.toml").configuration for data in (b"# a\n", b"# b\n"))
    assert one is not None
    assert two is not None
    assert one.revision != two.revision
    assert one.policy.revision == one.revision
    assert len(one.revision) == 12


def test_an_empty_policy_allows_nothing_and_listens_on_loopback_only(tmp_path: Path) -> None:
    path = tmp_path / "doorward.toml"
    path.write_text("")
    configuration = load(path)
    assert configuration.policy.rules == ()
    assert configuration.listen == (ListenAddress("127.0.0.1", 1080),)


def test_the_sample_policy_is_without_fault() -> None:
    assert check(ROOT / "doorward.toml") == []


def test_a_refused_file_raises_with_everything_found(tmp_path: Path) -> None:
    path = tmp_path / "doorward.toml"
    path.write_text('[networks]\nlan = ["x/y"]\nwan = []\n')
    with pytest.raises(ConfigurationRefused) as refused:
        load(path)
    assert [problem.line for problem in refused.value.problems] == [2, 3]
    assert f"{path}:3: networks.wan: an empty list" in str(refused.value)
    assert read(path).configuration is None


def test_a_file_that_cannot_be_read_is_refused_like_any_other_mistake(tmp_path: Path) -> None:
    reading = read(tmp_path / "missing.toml")
    assert [str(problem) for problem in reading.problems] == [
        f"{tmp_path}/missing.toml: there is no such file"
    ]
    assert reading.configuration is None


def test_an_absolute_path_in_the_policy_stays_as_it_is(tmp_path: Path) -> None:
    configuration = read_bytes(b'[log]\npath = "/srv/log.db"\n', tmp_path / "p.toml").configuration
    assert configuration is not None
    assert configuration.log.path == Path("/srv/log.db")


def test_a_limit_in_the_file_reaches_the_configuration(tmp_path: Path) -> None:
    text = b"[limits]\nidle_timeout_s = 60\nconnections_max = 7\n[log]\nsize_max_mb = 8\n"
    configuration = read_bytes(text, tmp_path / "p.toml").configuration
    assert configuration is not None
    assert (configuration.limits.idle_timeout_s, configuration.limits.connections_max) == (60, 7)
    assert configuration.log.total_bytes_max == 8 * 2**20
    assert configuration.log.file_bytes_max == 2 * 2**20


WORDS = """[[rule]] [rule] [networks] [limits] [users.kim] [[filter]] name action from to protocols users lan "lan" =
    ["network:lan"] ["10.0.0.0/8"] "allow" [] {} {a=1} 3 -1 nan true 2024-01-01 ["any"] password "" [["x"]] settings
"""
WORD = st.sampled_from(WORDS.split())
STATEMENTS = st.one_of(WORD, st.tuples(WORD, st.just("="), WORD).map(" ".join))


@settings(max_examples=200, deadline=None)
@given(st.lists(STATEMENTS, max_size=14).map("\n".join))
def test_any_text_is_loaded_or_refused_with_a_line_of_the_file(text: str) -> None:
    reading = read_bytes(text.encode(), Path("/nowhere/doorward.toml"))
    errors = [problem for problem in reading.problems if problem.severity == "error"]
    assert (reading.configuration is None) == bool(errors)
    assert all(0 <= problem.line <= text.count("\n") + 1 for problem in reading.problems)
    assert [p.line for p in reading.problems] == sorted(p.line for p in reading.problems)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_are_loaded_or_refused(data: bytes) -> None:
    reading = read_bytes(data, Path("/nowhere/doorward.toml"))
    assert (reading.configuration is None) == any(problem.severity == "error" for problem in reading.problems)


def test_every_cut_of_a_policy_is_loaded_or_refused(tmp_path: Path) -> None:
    policy = (GOLDEN / "sample_is_clean.txt").read_bytes().partition(SEPARATOR.encode())[0]
    for length in range(0, len(policy), 7):
        reading = read_bytes(policy[:length], tmp_path / "p.toml")
        assert (reading.configuration is None) == any(p.severity == "error" for p in reading.problems)


@pytest.mark.slow
def test_ten_thousand_rules_load_in_about_a_second(tmp_path: Path) -> None:
    rules = "".join(
        f'[[rule]]\nname = "r{n}"\naction = "allow"\nto = ["10.{n >> 8}.{n & 255}.1"]\nprotocols = ["https"]\n'
        for n in range(10_000)
    )
    assert len(rules) < FILE_BYTES_MAX
    start = time.process_time()
    reading = read_bytes(rules.encode(), tmp_path / "p.toml")
    assert time.process_time() - start < 6  # measured: 0.5 s; it would be minutes if the cost were quadratic
    assert reading.configuration is not None
    assert reading.configuration.policy.rules[-1].line == 5 * 9_999 + 1


@pytest.mark.slow
def test_a_policy_full_of_mistakes_is_refused_in_reasonable_time(tmp_path: Path) -> None:
    rules = "".join(
        f'[[rule]]\nname = "r{n}"\naction = "allow"\nprotocols = ["htps{n}"]\n' for n in range(5_000)
    )
    start = time.process_time()
    reading = read_bytes(rules.encode(), tmp_path / "p.toml")
    assert time.process_time() - start < 6
    assert len(reading.problems) == 5_000
