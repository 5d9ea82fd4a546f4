"""For people."""

from __future__ import annotations

from tests.packetfilter.tables import WEB, table_of

from doorward.packetfilter.text import show
from doorward.packetfilter.writing import lay_out


def test_the_text_replaces_the_table_in_one_go() -> None:
    text = show(lay_out(table_of(WEB)))
    assert text.startswith("table inet doorward\ndelete table inet doorward\ntable inet doorward {\n")
    assert text.count("{") == text.count("}")
    assert text.endswith("}\n")
