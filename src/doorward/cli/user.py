"""`doorward user`: who may identify themselves. Edits the policy file; a running firewall learns of it by `reload`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from doorward.cli.common import fail, found_policy, policy_option
from doorward.config.passwords import hash_password
from doorward.config.problems import ConfigurationRefused
from doorward.config.users import UserEditRefused, add_user, change_password, list_users, remove_user


@click.group("user", short_help="Add, change, remove and list users.")
def command() -> None:
    """Users of the policy file. After a change: `doorward reload`."""


def _password(from_stdin: bool) -> str:
    if from_stdin:
        try:
            return sys.stdin.readline().rstrip("\n")
        except UnicodeDecodeError:
            fail("the password is not valid text")
    answer: str = click.prompt("password", hide_input=True, confirmation_prompt=True, err=True)
    return answer


def _hash(password: str) -> str:
    try:
        return hash_password(password)
    except ValueError as error:
        fail(str(error))


@command.command("add")
@click.argument("name")
@click.option(
    "--group", "-g", "groups", multiple=True, metavar="GROUP", help="A group to be in; may be given again."
)
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input, one line.")
@policy_option
def add(name: str, groups: tuple[str, ...], password_stdin: bool, policy: Path | None) -> None:
    """Add the user NAME."""
    path = found_policy(policy)
    hashed = _hash(_password(password_stdin))
    try:
        add_user(path, name, hashed, groups)
    except (UserEditRefused, ConfigurationRefused) as error:
        fail(str(error))
    click.echo(f"added {name} to {path}; a running firewall learns of it by `doorward reload`")


@command.command("password")
@click.argument("name")
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input, one line.")
@policy_option
def password(name: str, password_stdin: bool, policy: Path | None) -> None:
    """Give the user NAME another password."""
    path = found_policy(policy)
    hashed = _hash(_password(password_stdin))
    try:
        change_password(path, name, hashed)
    except (UserEditRefused, ConfigurationRefused) as error:
        fail(str(error))
    click.echo(
        f"changed the password of {name} in {path}; a running firewall learns of it by `doorward reload`"
    )


@command.command("remove")
@click.argument("name")
@policy_option
def remove(name: str, policy: Path | None) -> None:
    """Remove the user NAME."""
    path = found_policy(policy)
    try:
        remove_user(path, name)
    except (UserEditRefused, ConfigurationRefused) as error:
        fail(str(error))
    click.echo(f"removed {name} from {path}; a running firewall learns of it by `doorward reload`")


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON list.")
@policy_option
def list_(as_json: bool, policy: Path | None) -> None:
    """List users and their groups."""
    try:
        users = list_users(found_policy(policy))
    except ConfigurationRefused as error:
        fail(str(error))
    if as_json:
        click.echo(json.dumps([{"name": user.name, "groups": sorted(user.groups)} for user in users]))
        return
    for user in users:
        click.echo(f"{user.name}  {' '.join(sorted(user.groups))}".rstrip())
