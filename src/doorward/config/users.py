"""Users in the policy file: add, remove, list. The operator's comments and layout stay as they are.

An edit is made on a copy, checked as `doorward check` would, and put in place in one step: whoever reads the file
sees the old text or the new one, and a failure at any point leaves the old one. Two edits at once are refused.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import tempfile
import tomllib
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeAlias, cast

import tomlkit

from doorward.config.lines import KeyPath, Lines
from doorward.config.loading import load, read_bytes
from doorward.config.model import User
from doorward.config.passwords import hash_mistake, hash_password, verify_password
from doorward.config.problems import ConfigurationRefused, key_text
from doorward.config.source import parse_toml, read_source

__all__ = [
    "UserEditRefused",
    "add_user",
    "change_password",
    "hash_password",
    "list_users",
    "remove_user",
    "verify_password",
]

_NAME: Final = re.compile(r"[!#-&(-.0-9;-~]{1,255}")

Content: TypeAlias = MutableMapping[str, Any]


class UserEditRefused(Exception):
    """The edit cannot be made; the file is as it was. The message is for the operator."""


def list_users(path: Path) -> tuple[User, ...]:
    """Every user, in the order of the file. Raises ConfigurationRefused."""
    return tuple(load(path).users.values())


def add_user(path: Path, name: str, password_hash: str, groups: Iterable[str] = ()) -> None:
    """Add a user, after the other users. Raises UserEditRefused, or ConfigurationRefused if the file would not pass."""
    _check(name, password_hash)
    entry: dict[str, Any] = {"password": password_hash}
    if listed := list(dict.fromkeys(groups)):
        entry["groups"] = listed

    def edit(text: str, plain: Content) -> str:
        users = plain.setdefault("users", {})
        if name in users:
            raise UserEditRefused(f'there is a user "{name}" already')
        lines = Lines(text)
        extents = [lines.extent(("users", other)) for other in users]
        users[name] = entry
        key = name if key_text((name,)) == name else json.dumps(name)  # for ASCII, JSON's escapes are TOML's
        rows = text.removesuffix("\n").split("\n")
        last = max((extent[1] for extent in extents if extent), default=len(rows))
        rows[last:last] = [
            "",
            f"[users.{key}]",
            *(f"{k} = {json.dumps(v)}" for k, v in entry.items()),
        ]
        return "\n".join(rows).lstrip("\n") + "\n"

    _edit(path, edit)


def change_password(path: Path, name: str, password_hash: str) -> None:
    """Give a user another password. Raises as `add_user` does."""
    _check(name, password_hash)

    def edit(text: str, plain: Content) -> str:
        _require(name, plain)
        content = cast(Content, tomlkit.parse(text))
        for target in (content, plain):
            target["users"][name]["password"] = password_hash
        return tomlkit.dumps(content)

    _edit(path, edit)


def remove_user(path: Path, name: str) -> None:
    """Remove a user, also from `[groups]`. Raises as `add_user` does; a rule that names the user must go first."""

    def edit(text: str, plain: Content) -> str:
        _require(name, plain)
        content = cast(Content, tomlkit.parse(_without_table(text, ("users", name))))
        for target in (content, plain):
            target.get("users", {}).pop(name, None)
            for members in target.get("groups", {}).values():
                if name in members:
                    members.remove(name)
        return tomlkit.dumps(content)

    _edit(path, edit)


def _without_table(text: str, table: KeyPath) -> str:
    """The text without a table that has a heading of its own; comments around it stay, which tomlkit would not do."""
    extent = Lines(text).extent(table)
    if extent is None:
        return text
    rows = text.split("\n")
    first, last = extent[0] - 1, extent[1]
    if first and not rows[first - 1].strip() and (last >= len(rows) or not rows[last].strip()):
        first -= 1
    return "\n".join(rows[:first] + rows[last:])


def _check(name: str, password_hash: str) -> None:
    if not _NAME.fullmatch(name):
        raise UserEditRefused(
            'a user name has 1 to 255 printable ASCII characters other than space, colon, quotes and "/"'
        )
    if mistake := hash_mistake(password_hash):
        raise UserEditRefused(mistake)


def _require(name: str, plain: Content) -> None:
    if name not in plain.get("users", {}):
        raise UserEditRefused(f'there is no user "{name}"')


def _edit(path: Path, edit: Callable[[str, Content], str]) -> None:
    """Make one edit: `edit` answers the new text and changes the plain data, and both must come to say the same."""
    try:
        path = path.resolve(strict=True)  # of a link, the file is replaced and not the link
        with _only_editor(path.parent):
            text, plain = parse_toml(read_source(path), path)
            if "\r\n" in text:
                raise UserEditRefused("the file has Windows line ends; convert it first")
            edited = edit(text, plain).encode()
            if not _says(edited, plain):
                raise UserEditRefused("the file's layout is too unusual to be edited safely; edit it by hand")
            reading = read_bytes(edited, path)
            if reading.configuration is None:
                raise ConfigurationRefused(reading.problems)
            _replace(path, edited)
    except OSError as failure:
        raise UserEditRefused(f"{path} cannot be edited: {failure.strerror or failure}") from failure


def _says(data: bytes, plain: Content) -> bool:
    try:
        content = tomllib.loads(data.decode())
    except tomllib.TOMLDecodeError:
        return False
    return {"users": {}, **content} == {"users": {}, **plain}


@contextmanager
def _only_editor(directory: Path) -> Iterator[None]:
    """Hold the directory's lock: the file itself is replaced, so a lock on it would guard the old one."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserEditRefused("somebody else is editing the policy just now; try again") from None
        yield
    finally:
        os.close(descriptor)


def _replace(path: Path, data: bytes) -> None:
    """Put `data` in the file's place, with its mode and owner, safe on disk before the old text goes."""
    old = path.stat()
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            new = os.fstat(descriptor)
            if (new.st_uid, new.st_gid) != (old.st_uid, old.st_gid):
                os.fchown(descriptor, old.st_uid, old.st_gid)
            os.fchmod(descriptor, old.st_mode & 0o7777)
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
