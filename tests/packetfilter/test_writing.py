"""Tables in full, as they would be loaded: golden files, in both languages. DOORWARD_GOLDEN=write writes them anew."""

from __future__ import annotations

import json
import os
import subprocess
from ipaddress import ip_network
from pathlib import Path
from typing import Final

import msgspec
import pytest
from tests.end_to_end.wires import unshare_flags, why_not
from tests.packetfilter.tables import CAPTURE, WEB, table_of

from doorward.packetfilter.model import Ports, Table
from doorward.packetfilter.orders import document, load
from doorward.packetfilter.text import show
from doorward.packetfilter.writing import COMMENT_BYTES_MAX, lay_out
from doorward.policy.model import Action, PortRange, Rule

GOLDEN: Final = Path(__file__).parents[1] / "golden" / "packetfilter"
LAN: Final = (ip_network("10.1.0.0/24"),)
HOSTS: Final = tuple(ip_network(f"203.0.113.{n}/32") for n in range(0, 20, 2))
TABLES: Final[dict[str, Table]] = {
    "nothing": table_of(),
    "web": table_of(WEB, Rule("named", Action.ALLOW, 9, to_names=("example.org",))),
    "everything": table_of(
        Rule("no mail", Action.DENY, 1, ports=(PortRange("tcp", 25, 25), PortRange("tcp", 465, 465))),
        Rule("hosts", Action.ALLOW, 2, sources=LAN, to_networks=HOSTS),
        Rule('a "quoted"\n name', Action.ALLOW, 3, sources=LAN, ports=(PortRange("udp", 123, 123),)),
        capture=msgspec.structs.replace(
            CAPTURE,
            tcp_method="redirect",
            keep_source=("203.0.113.0/24",),
            up=(Ports("udp", 53, 53),),
            log_group=5,
            interfaces=(),
        ),
    ),
}


@pytest.mark.parametrize("name", TABLES)
def test_tables_are_written_as_they_were(name: str) -> None:
    layout = lay_out(TABLES[name])
    found = {
        f"{name}.nft": show(layout),
        f"{name}.json": json.dumps(document(load(layout)), indent=1) + "\n",
    }
    for file, text in found.items():
        if os.environ.get("DOORWARD_GOLDEN") == "write":
            (GOLDEN / file).write_text(text)
        assert (GOLDEN / file).read_text() == text, (
            f"{file} has changed; look at it, then DOORWARD_GOLDEN=write"
        )


@pytest.mark.skipif(bool(why_not()), reason=why_not())
@pytest.mark.parametrize("name", TABLES)
def test_the_kernel_takes_both_languages_and_they_are_the_same(name: str) -> None:
    script = 'nft $1 -f "$2" && nft $1 -f "$2" && nft list ruleset'
    listed = []
    for words in (["-s", str(GOLDEN / f"{name}.nft")], ["-j", str(GOLDEN / f"{name}.json")]):
        done = subprocess.run(
            ["unshare", unshare_flags(), "sh", "-c", script, "sh", *words],
            capture_output=True, text=True, timeout=15, check=False,
        )  # fmt: skip
        assert not done.returncode, done.stderr
        listed.append(done.stdout)
    assert listed[0] == listed[1]
    assert "table inet doorward" in listed[0]


def test_names_of_rules_are_comments_that_nft_can_read() -> None:
    long = lay_out(table_of(Rule("é" * 300, Action.DENY, 1, ports=(PortRange("tcp", 1, 1),))))
    comments = [counter.comment for counter in long.counters]
    assert max(len(comment.encode()) for comment in comments) <= COMMENT_BYTES_MAX
    assert "allow: a 'quoted'? name" in {c.comment for c in lay_out(TABLES["everything"]).counters}
