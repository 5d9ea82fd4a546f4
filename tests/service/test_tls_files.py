"""A context is made once, and again when its files have changed; what cannot be used is said in words."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest
from tests.net.certificates import Authority, usual

from doorward.api import BadArgument
from doorward.service.tls_files import CONTEXTS_MAX, TLSContexts, Wanted

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return usual(Path(tmp_path_factory.mktemp("certificates")))


def server(certificate: str | None, key: str | None = None) -> Wanted:
    return Wanted("server", (), certificate, key, None, "no", verify=True)


def client(ca: str | None = None, alpn: tuple[str, ...] = ()) -> Wanted:
    return Wanted("client", alpn, None, None, ca, "no", verify=True)


async def test_the_same_files_are_one_context_also_for_those_who_ask_at_once(authority: Authority) -> None:
    contexts = TLSContexts()
    wanted = server(*map(str, authority.identity("server")))
    found = await asyncio.gather(*(contexts.get(wanted) for _ in range(20)))
    assert len(set(map(id, found))) == 1
    assert await contexts.get(client(authority.file)) is not found[0]


async def test_changed_files_are_read_again(authority: Authority, tmp_path: Path) -> None:
    certificate, key = tmp_path / "own.pem", tmp_path / "own.key"
    contexts, wanted = TLSContexts(), server(str(certificate), str(key))
    with pytest.raises(BadArgument, match=r"own\.pem"):
        await contexts.get(wanted)
    made = []
    for name in ("server", "other"):
        chain, own_key = authority.identity(name)
        shutil.copy(str(chain), certificate)
        shutil.copy(str(own_key), key)
        made.append(await contexts.get(wanted))
        assert await contexts.get(wanted) is made[-1]
    assert made[0] is not made[1]
    certificate.unlink()
    with pytest.raises(BadArgument):
        await contexts.get(wanted)


@pytest.mark.parametrize(
    "wanted",
    [
        server(None),
        server("/nowhere/at/all.pem"),
        server("\0"),
        server(None, "key.pem"),
        client("/nowhere/at/all.pem"),
        Wanted("client", (), None, None, None, "required", verify=True),
        Wanted("server", (), "/nowhere.pem", None, None, "required", verify=True),
        client(alpn=("x" * 256,)),
    ],
)
async def test_what_cannot_be_used(wanted: Wanted) -> None:
    with pytest.raises(BadArgument):
        await TLSContexts().get(wanted)


async def test_there_is_a_cap(authority: Authority) -> None:
    contexts = TLSContexts()
    first = await contexts.get(client(authority.file))
    for number in range(CONTEXTS_MAX):
        await contexts.get(client(authority.file, (f"protocol {number}",)))
    assert len(contexts) == CONTEXTS_MAX
    assert await contexts.get(client(authority.file)) is not first
