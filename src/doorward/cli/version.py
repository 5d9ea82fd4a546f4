"""`doorward version`: what is running, and on what."""

from __future__ import annotations

import json
import platform
import sqlite3
import ssl
from importlib.metadata import PackageNotFoundError, version

import click

import doorward
from doorward.net.python_relay import PythonRelay

LIBRARIES = ("argon2-cffi", "click", "httptools", "msgspec", "structlog", "tomlkit")


@click.command("version", short_help="Print the version; --verbose names everything underneath.")
@click.option("--verbose", "-v", is_flag=True, help="Also Python, OpenSSL, SQLite, relay and libraries.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, always with everything.")
def command(verbose: bool, as_json: bool) -> None:
    """Print the version."""
    facts = {
        "doorward": doorward.__version__,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "openssl": ssl.OPENSSL_VERSION,
        "sqlite": sqlite3.sqlite_version,
        "relay": PythonRelay.name,
        **{name: _version(name) for name in LIBRARIES},
    }
    if as_json:
        click.echo(json.dumps(facts))
    elif verbose:
        width = max(map(len, facts))
        for name, value in facts.items():
            click.echo(f"{name:<{width}}  {value}")
    else:
        click.echo(f"doorward {doorward.__version__}")


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
