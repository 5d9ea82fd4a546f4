from __future__ import annotations

import fcntl
import os
from pathlib import Path

import argon2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from doorward.config.loading import check, load
from doorward.config.problems import ConfigurationRefused
from doorward.config.users import UserEditRefused, add_user, change_password, list_users, remove_user

HASH, OTHER = (argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(text) for text in "xy")

POLICY = f"""\
# the office's policy
[networks]
lan = ["10.0.0.0/8"]   # everybody

[users.kim]   # head of the house
password = '{HASH}'

# about the rules
[[rule]]
name = "web"
action = "allow"
from = ["network:lan"]
protocols = ["http"]
"""


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "doorward.toml"
    path.write_text(POLICY)
    return path


def test_a_user_is_added_after_the_others_and_nothing_else_changes(policy: Path) -> None:
    add_user(policy, "lee", OTHER, ["engineering", "engineering"])
    added = f'\n[users.lee]\npassword = "{OTHER}"\ngroups = ["engineering"]\n'
    assert policy.read_text() == POLICY.replace("\n# about", added + "\n# about")
    assert [user.name for user in list_users(policy)] == ["kim", "lee"]
    assert load(policy).users["lee"].groups == {"engineering"}


def test_removing_what_was_added_gives_the_file_back(policy: Path) -> None:
    add_user(policy, "lee", OTHER)
    add_user(policy, "lou", OTHER)
    remove_user(policy, "lee")
    remove_user(policy, "lou")
    assert policy.read_text() == POLICY


def test_a_removed_user_leaves_every_group_but_no_comment_is_lost(policy: Path) -> None:
    policy.write_text(POLICY + '[groups]\nops = ["kim"]   # on call\n')
    remove_user(policy, "kim")
    assert policy.read_text().endswith("[groups]\nops = []   # on call\n")
    assert "# about the rules\n[[rule]]" in policy.read_text()
    assert list_users(policy) == ()


def test_a_new_password_keeps_comments(policy: Path) -> None:
    change_password(policy, "kim", OTHER)
    assert list_users(policy)[0].password == OTHER
    assert "# head of the house" in policy.read_text()


def test_the_first_user_of_an_empty_policy_can_be_added(tmp_path: Path) -> None:
    path = tmp_path / "doorward.toml"
    path.write_text("")
    add_user(path, "kim", HASH)
    assert path.read_text() == f'[users.kim]\npassword = "{HASH}"\n'


@settings(max_examples=50, deadline=None)
@given(name=st.text(st.sampled_from("ab.@-_\\#[]=!~"), min_size=1, max_size=6))
def test_any_permitted_name_comes_back_as_it_was_given(
    name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("p") / "doorward.toml"
    path.write_text(POLICY)
    add_user(path, name, HASH)
    assert [user.name for user in list_users(path)] == ["kim", name]
    remove_user(path, name)
    assert path.read_text() == POLICY


@pytest.mark.parametrize("name", ["", "a b", "a:b", "a/b", 'a"', "a'", "é", "a\n", "x" * 256])
def test_a_name_that_is_not_permitted_changes_nothing(policy: Path, name: str) -> None:
    with pytest.raises(UserEditRefused, match="a user name has"):
        add_user(policy, name, HASH)
    assert policy.read_text() == POLICY


def test_a_plain_password_is_never_written(policy: Path) -> None:
    for edit in (add_user, change_password):
        with pytest.raises(UserEditRefused, match="argon2"):
            edit(policy, "kim", "hunter2")
    assert policy.read_text() == POLICY


def test_who_exists_is_not_added_and_who_does_not_is_not_removed(policy: Path) -> None:
    with pytest.raises(UserEditRefused, match="already"):
        add_user(policy, "kim", HASH)
    with pytest.raises(UserEditRefused, match="no user"):
        remove_user(policy, "lee")
    with pytest.raises(UserEditRefused, match="no user"):
        change_password(policy, "lee", HASH)


def test_a_user_whom_a_rule_names_cannot_be_removed(policy: Path) -> None:
    text = POLICY + 'users = ["kim"]\n'
    policy.write_text(text)
    with pytest.raises(ConfigurationRefused, match='unknown user "kim"'):
        remove_user(policy, "kim")
    assert policy.read_text() == text
    assert list(policy.parent.iterdir()) == [policy]


def test_a_file_that_does_not_pass_is_not_edited(policy: Path) -> None:
    policy.write_text("[listn]\n")
    with pytest.raises(ConfigurationRefused, match="listn"):
        add_user(policy, "lee", HASH)
    assert policy.read_text() == "[listn]\n"


def test_users_in_an_inline_table_can_be_removed_but_are_added_by_hand(policy: Path) -> None:
    text = f"users = {{kim = {{password = '{HASH}'}}, lee = {{password = '{HASH}'}}}}\n"
    policy.write_text(text)
    with pytest.raises(UserEditRefused, match="by hand"):
        add_user(policy, "lou", HASH)
    assert policy.read_text() == text
    remove_user(policy, "lee")
    assert [user.name for user in list_users(policy)] == ["kim"]


def test_the_mode_stays_and_a_link_stays_a_link(policy: Path, tmp_path: Path) -> None:
    policy.chmod(0o640)
    link = tmp_path / "link.toml"
    link.symlink_to(policy)
    add_user(link, "lee", HASH)
    assert link.is_symlink()
    assert policy.stat().st_mode & 0o7777 == 0o640
    assert check(policy) == []


def test_a_failure_while_writing_leaves_the_old_file_and_no_other(
    policy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(UserEditRefused, match="No space left"):
        add_user(policy, "lee", HASH)
    assert policy.read_text() == POLICY
    assert list(policy.parent.iterdir()) == [policy]


def test_two_edits_at_once_are_refused(policy: Path) -> None:
    directory = os.open(policy.parent, os.O_RDONLY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        with pytest.raises(UserEditRefused, match="somebody else"):
            add_user(policy, "lee", HASH)
    finally:
        os.close(directory)
    add_user(policy, "lee", HASH)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserEditRefused, match="cannot be edited"):
        add_user(tmp_path / "none.toml", "kim", HASH)
