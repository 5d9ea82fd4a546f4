"""Certificates for tests, minted by the openssl program: an authority, and who it speaks for."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import NamedTuple

from doorward.net.tls_context import Identity

SERVER_NAME = "server.test"
OTHER_NAME = "other.test"
_KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]


class Authority(NamedTuple):
    """A certificate authority: its certificate's file, and where everything it mints goes."""

    directory: Path

    @property
    def file(self) -> str:
        return str(self.directory / "ca.pem")

    def identity(self, name: str) -> Identity:
        """The files of one that was minted."""
        return Identity(str(self.directory / f"{name}.pem"), str(self.directory / f"{name}.key"))

    def mint(self, name: str, alternative: str, *options: str) -> Identity:
        """A certificate for these alternative names, in `name.pem` and `name.key`."""
        certificate, key = self.identity(name)
        _openssl(
            *("req", "-x509", *_KEY, "-keyout", str(key), "-out", str(certificate), "-subj", f"/CN={name}"),
            *("-CA", self.file, "-CAkey", str(self.directory / "ca.key"), "-days", "3"),
            *("-addext", f"subjectAltName={alternative}", "-addext", "basicConstraints=critical,CA:FALSE"),
            *options,
        )
        return Identity(certificate, key)

    def mint_expired(self, name: str, alternative: str) -> Identity:
        """The same, over since yesterday."""
        certificate, key = self.identity(name)
        request = str(self.directory / f"{name}.csr")
        subject = ("-subj", f"/CN={name}", "-addext", f"subjectAltName={alternative}")
        _openssl("req", "-new", *_KEY, "-keyout", str(key), "-out", request, *subject)
        _openssl(
            *("x509", "-req", "-in", request, "-copy_extensions", "copy", "-out", str(certificate)),
            *("-CA", self.file, "-CAkey", str(self.directory / "ca.key"), "-days", "-1"),
        )
        return Identity(certificate, key)


def authority(directory: Path, name: str = "Test authority") -> Authority:
    """A new one."""
    made = Authority(directory)
    _openssl(
        *("req", "-x509", *_KEY, "-keyout", str(directory / "ca.key"), "-out", made.file, "-days", "3"),
        *("-subj", f"/CN={name}", "-addext", "keyUsage=critical,keyCertSign"),
    )
    return made


def usual(directory: Path) -> Authority:
    """An authority, a server at SERVER_NAME and 127.0.0.1, another at OTHER_NAME, and a client."""
    made = authority(directory)
    made.mint("server", f"DNS:{SERVER_NAME},IP:127.0.0.1")
    made.mint("other", f"DNS:{OTHER_NAME}")
    made.mint("client", "DNS:client.test")
    return made


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=10)
