"""`doorward version`: what is running, and on what."""

from __future__ import annotations

import json
import platform
import sqlite3
import ssl
from importlib.metadata import PackageNotFoundError, version

import click

import doorward
from doorward.net import native_relay
from doorward.net.native_relay import NativeRelay
from doorward.net.python_relay import PythonRelay

NATIVE_PACKAGE = "doorward-native"
NOT_INSTALLED = "not installed"
LIBRARIES = ("argon2-cffi", "click", "httptools", "msgspec", "structlog", "tomlkit")


@click.command("version", short_help="Print version and relay; --verbose names everything underneath.")
@click.option("--verbose", "-v", is_flag=True, help="Also Python, OpenSSL, SQLite and libraries.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, always with everything.")
def command(verbose: bool, as_json: bool) -> None:
    """Print the version, and which relay would carry bytes."""
    facts = {
        "doorward": doorward.__version__,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "openssl": ssl.OPENSSL_VERSION,
        "sqlite": sqlite3.sqlite_version,
        "relay": _relay(),
        **{name: _version(name) for name in LIBRARIES},
    }
    if as_json:
        click.echo(json.dumps(facts))
    elif verbose:
        width = max(map(len, facts))
        for name, value in facts.items():
            click.echo(f"{name:<{width}}  {value}")
    else:
        click.echo(f"doorward {facts['doorward']}\nrelay    {facts['relay']}")


def _relay() -> str:
    """Which relay `serve` would take, and why it is not the faster one."""
    if native_relay.is_available():
        return f"{NativeRelay.name} {_version(NATIVE_PACKAGE)}"
    installed = _version(NATIVE_PACKAGE)
    if installed == NOT_INSTALLED:
        return f"{PythonRelay.name} (the native one is not installed)"
    return f"{PythonRelay.name} (the native one, {installed}, is of another version or cannot be loaded)"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return NOT_INSTALLED
