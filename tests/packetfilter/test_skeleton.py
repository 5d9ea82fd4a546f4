"""What stands around the policy, whatever it is. That it works is shown with packets, in tests/end_to_end."""

from __future__ import annotations

import msgspec
from tests.packetfilter.tables import CAPTURE

from doorward.packetfilter import skeleton


def text(method: str = "tproxy") -> dict[str, list[str]]:
    capture = msgspec.structs.replace(CAPTURE, tcp_method=method)
    return {c.name: [" ".join(p.text for p in rule) for rule in c.rules] for c in skeleton.chains(capture)}


def test_input_and_forward_are_closed_unless_a_rule_opens_them() -> None:
    hooked = {c.name: c.hook for c in skeleton.chains(CAPTURE) if c.hook is not None}
    assert {name for name, hook in hooked.items() if hook.policy == "drop"} == {"input", "forward"}
    assert text()["forward"][-1] == text()["input"][-1] == "counter name outside"


def test_nothing_but_tcp_and_udp_that_has_a_flow_is_judged() -> None:
    rules = text()["prerouting"]
    judged = min(at for at, rule in enumerate(rules) if "goto" in rule)
    for wanted in (
        "meta mark set 0x00000000",
        "ct state invalid,untracked",
        "ct direction reply accept",
        "spoofed",
    ):
        assert any(wanted in rule for rule in rules[:judged]), wanted


def test_without_a_service_what_comes_up_is_refused() -> None:
    *_, tcp, udp, last = text()["judged"]
    assert "tproxy to :1081" in tcp
    assert "tproxy to :1081" in udp
    assert last == "counter name unanswered goto refuse"


def test_redirected_tcp_is_not_led_to_a_transparent_socket() -> None:
    found = text("redirect")
    assert found["redirected"] == ["meta mark 0x0d000003 meta l4proto tcp redirect to :1081"]
    assert sum("tproxy" in rule for rule in found["judged"]) == 1


def test_only_clients_come_up_where_this_machine_is_meant() -> None:
    assert text()["own"][-3:] == [
        "ip saddr @clients4 goto judged",
        "ip6 saddr @clients6 goto judged",
        "goto refuse",
    ]
