"""Every word in both languages."""

from __future__ import annotations

from doorward.packetfilter import words
from doorward.packetfilter.words import MARK, among, between, concat, ct, field, match, meta


def test_words_say_the_same_twice() -> None:
    assert match(MARK, 1) == ("meta mark 0x00000001", {"match": {"op": "==", "left": MARK.json, "right": 1}})
    source = field("ip6", "saddr")
    assert match(source, "fe80::/10", "!=").text == "ip6 saddr != fe80::/10"
    assert match(source, "fe80::/10").json["match"]["right"] == {"prefix": {"addr": "fe80::", "len": 10}}
    assert match(source, "@clients6").json["match"]["right"] == "@clients6"
    assert among(meta("l4proto"), "tcp", "udp").text == "meta l4proto { tcp, udp }"
    assert between(field("th", "dport"), 1, 5).text == "th dport 1-5"
    assert between(field("th", "dport"), 5, 5) == match(field("th", "dport"), 5)
    assert concat(ct("ip saddr", "original"), meta("l4proto")).text == "ct original ip saddr . meta l4proto"
    assert words.logged("doorward 3", 5).json["log"]["group"] == 5
    assert words.at_most(5).text == "limit rate 5/second burst 5 packets"
    assert words.redirect(1081).json == {"redirect": {"port": 1081}}
