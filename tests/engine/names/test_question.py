"""What is told, by what was asked for; and what a refusal looks like to who asks, and on record."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from ipaddress import ip_address, ip_network

import dns.flags
import pytest
from tests.engine.ears import Ears
from tests.engine.names.messages import ask
from tests.engine.names.server import RULES, Asker, Authority, answer_to, lookup
from tests.engine.rig import Rig

from doorward.api import ResolveEvent
from doorward.config.model import Limits
from doorward.engine.names.memory import target_of_address
from doorward.engine.names.question import ADDRESSES_MAX
from doorward.policy.model import Action, Rule

pytestmark = pytest.mark.anyio

MakeRig = Callable[..., Rig]


@pytest.fixture
async def asker(make_rig: MakeRig) -> Asker:
    return Asker(make_rig(lookup=lookup, rules=RULES, lookup_back=lambda address: ("host.test", "a b")))


@pytest.fixture
async def authorities(anyio_backend: str) -> AsyncIterator[list[Authority]]:
    made: list[Authority] = []
    yield made
    for authority in made:
        await authority.close()


async def test_addresses_of_an_allowed_name_are_told_and_remembered(asker: Asker) -> None:
    reply = await asker.ask("Both.TEST")
    assert (reply.code, reply.data) == ("NOERROR", ["192.0.2.7", "192.0.2.8"])
    assert [rrset.ttl for rrset in reply.message.answer] == [60]
    assert (await asker.ask("both.test", "AAAA")).data == ["2001:db8::7"]
    for address in ("192.0.2.7", "192.0.2.8", "2001:db8::7"):
        target = target_of_address(asker.rig.engine, asker.session, ip_address(address), 443)
        assert target.host == "both.test"
    assert asker.records == [], "what is allowed is on record when it is connected to"


async def test_a_family_that_a_name_has_not_is_no_data(asker: Asker) -> None:
    reply = await asker.ask("four.test", "AAAA")
    assert (reply.code, reply.data, reply.extended) == ("NOERROR", [], None)


async def test_a_name_that_is_not_there_is_not_there(asker: Asker) -> None:
    reply = await asker.ask("nowhere.test")
    assert (reply.code, reply.extended) == ("NXDOMAIN", None)
    assert (await asker.ask("nowhere.test", "AAAA")).code == "NXDOMAIN"
    assert asker.said() == [("nowhere.test", "name_not_found", None)], "once, for both kinds"
    record = asker.records[0]
    assert (record.operation, record.action, record.end) == ("resolve", "fail", "failed")


@pytest.mark.parametrize("kind", ["A", "AAAA", "HTTPS", "MX", "TXT"])
async def test_a_name_that_no_rule_could_allow_is_never_looked_up(asker: Asker, kind: str) -> None:
    reply = await asker.ask("www.bad.test", kind)
    assert (reply.code, reply.extended) == ("NXDOMAIN", (15, 'rule_deny: "nobody"'))
    assert asker.said() == [("www.bad.test", "rule_deny", "nobody")]
    record = asker.records[0]
    assert (record.operation, record.action, record.entry) == ("resolve", "deny", "captured")
    assert (record.detail, record.transport, record.client_port) == (kind, "udp", 4242)
    assert asker.rig.lookups == []


async def test_a_name_whose_only_port_is_denied_leads_nowhere_by_that_name(asker: Asker) -> None:
    asker.rig.engine.ruling = asker.rig.ruling((), RULES[:3])
    reply = await asker.ask("half.test")
    assert (reply.code, reply.extended) == ("NXDOMAIN", (15, "default_deny"))
    assert asker.rig.lookups == []


async def test_a_name_without_a_rule_is_looked_up_if_its_address_could_be_allowed(asker: Asker) -> None:
    assert (await asker.ask("inside.example")).data == ["198.51.100.7"], "the other one is not told"
    reply = await asker.ask("outside.example")
    assert (reply.code, reply.extended) == ("NXDOMAIN", (15, "default_deny"))
    assert [(r.host, r.address, r.reason) for r in asker.records] == [
        ("outside.example", "192.0.2.7", "default_deny")
    ]


@pytest.mark.parametrize(
    ("name", "reason", "label"),
    [
        ("home.test", "guarded_loopback", "built-in: loopback"),
        ("mapped.test", "guarded_loopback", "built-in: loopback"),
        ("metadata.test", "guarded_metadata", "built-in: cloud metadata"),
    ],
)
async def test_a_name_that_leads_to_guarded_addresses_alone_is_refused(
    asker: Asker, name: str, reason: str, label: str
) -> None:
    for kind in ("A", "AAAA"):
        reply = await asker.ask(name, kind)
        assert (reply.code, reply.data, reply.extended) == ("NXDOMAIN", [], (15, f'{reason}: "{label}"'))
    assert asker.said() == [(name, reason, label)], "once, for both kinds"
    assert asker.session.asked is not None
    assert len(asker.session.asked.memory) == 0


async def test_of_a_name_only_what_could_be_connected_to_is_told(asker: Asker) -> None:
    assert (await asker.ask("mixed.test")).data == ["192.0.2.9"]
    for guarded in ("127.0.0.1", "169.254.169.254"):
        assert target_of_address(asker.rig.engine, asker.session, ip_address(guarded), 443).host is None


async def test_of_many_addresses_only_so_many_are_judged_and_told(asker: Asker) -> None:
    assert len((await asker.ask("many.test", way="tcp")).data) == ADDRESSES_MAX


async def test_loopback_that_a_rule_names_is_told(make_rig: MakeRig) -> None:
    asker = Asker(make_rig(lookup=lookup))  # whose rules name loopback
    assert (await asker.ask("home.test")).data == ["127.0.0.1"]


async def test_localhost_is_the_clients_own(asker: Asker) -> None:
    assert (await asker.ask("localhost")).data == ["127.0.0.1"]
    assert (await asker.ask("x.LocalHost", "AAAA")).data == ["::1"]
    assert (await asker.ask("localhost", "TXT")).code == "NOERROR"
    assert (await asker.ask("1.0.0.127.in-addr.arpa", "PTR")).data == ["localhost."]
    assert asker.session.asked is not None
    assert len(asker.session.asked.memory) == 0
    assert asker.rig.lookups == []


@pytest.mark.parametrize("kind", ["HTTPS", "SVCB"])
async def test_hints_that_lead_past_the_addresses_are_not_told(asker: Asker, kind: str) -> None:
    reply = await asker.ask("four.test", kind)
    assert (reply.code, reply.data, reply.extended) == ("NOERROR", [], None)
    assert asker.rig.lookups == []


@pytest.mark.parametrize(
    "kind", ["ANY", "AXFR", "IXFR", "TKEY", "NULL", "DS", "A6", "TYPE65000", "OPT", "TYPE0"]
)
async def test_other_types_are_not_answered(asker: Asker, kind: str) -> None:
    reply = await asker.ask("four.test", kind)
    assert reply.code == "NOTIMP"
    assert reply.extended is not None
    assert reply.extended[0] == 21


@pytest.mark.parametrize(
    "name", ["127.0.0.1", "1", "0x7f000001", "a\\.b.test", "\\000.test", "a b.test", "*.test", "x\\255.test"]
)
async def test_what_can_be_no_name_is_refused_and_not_looked_up(asker: Asker, name: str) -> None:
    assert (await asker.ask(name)).code == "NXDOMAIN"
    assert [record.reason for record in asker.records] == ["bad_name"]
    assert asker.rig.lookups == []


async def test_of_the_root_nothing_is_told(asker: Asker) -> None:
    assert (await asker.ask(".", "NS")).code == "REFUSED"


async def test_an_address_is_called_what_this_session_called_it(asker: Asker) -> None:
    reversed_name = "7.2.0.192.in-addr.arpa"
    refused = await asker.ask(reversed_name, "PTR")
    assert (refused.code, refused.extended) == ("NXDOMAIN", (15, "default_deny"))
    assert [(r.host, r.address, r.detail) for r in asker.records] == [(None, "192.0.2.7", "PTR")]
    await asker.ask("four.test")
    await asker.ask("both.test")
    assert (await asker.ask(reversed_name, "PTR")).data == ["both.test.", "four.test."]
    assert (await asker.ask("9.100.51.198.in-addr.arpa", "PTR")).data == ["host.test."], (
        "as the resolver says"
    )


async def test_records_of_other_types_come_from_the_machines_name_servers(
    asker: Asker, authorities: list[Authority]
) -> None:
    said = answer_to(
        ask("four.test", "MX"), "four.test. 900 IN MX 10 mx.four.test.", "four.test. 9 IN A 10.0.0.1"
    )
    authorities.append(Authority(said))
    asker = Asker(asker.rig, authorities[0].servers)
    reply = await asker.ask("Four.test", "MX")
    assert (reply.code, reply.data) == ("NOERROR", ["10 mx.four.test."])
    assert len(authorities[0].asked) == 1
    assert asker.rig.lookups == []


async def test_a_name_server_that_is_not_there_or_lies_is_a_failure(
    asker: Asker, authorities: list[Authority]
) -> None:
    reply = await asker.ask("four.test", "TXT")
    assert (reply.code, reply.extended) == ("SERVFAIL", (23, "unreachable"))
    assert [(r.action, r.reason) for r in asker.records] == [("fail", "unreachable")]
    bad = answer_to(ask("four.test", "TXT"), 'four.test. 9 IN TXT "x"')[:-1]
    authorities.append(Authority(bad))
    reply = await Asker(asker.rig, authorities[0].servers).ask("four.test", "TXT")
    assert reply.code == "SERVFAIL"


async def test_an_answer_too_long_for_a_datagram_says_so(asker: Asker, authorities: list[Authority]) -> None:
    cut = answer_to(ask("four.test", "TXT"), flags=dns.flags.TC)
    texts = [f'four.test. 9 IN TXT "{n}{"x" * 200}"' for n in range(8)]
    whole = answer_to(ask("four.test", "TXT"), *texts)
    # The stream's answer is given under the identifier that it was asked for.
    authorities.append(Authority(cut, cut, stream=len(whole).to_bytes(2) + whole))
    asker = Asker(asker.rig, authorities[0].servers)
    reply = await asker.ask("four.test", "TXT")
    assert (reply.truncated, reply.data) == (True, [])
    assert len((await asker.ask("four.test", "TXT", way="tcp")).data) == 8


async def test_filters_hear_of_queries_as_of_any_look_up(make_rig: MakeRig) -> None:
    def deny(event: ResolveEvent) -> None:
        if event.name == "four.test":
            event.deny("not_today")

    ears = Ears(before=deny, after=lambda event: event.set_result("192.0.2.200", "10.0.0.1", *event.results))
    rules = (Rule("ten", Action.DENY, to_networks=(ip_network("10.0.0.0/8"),)), *RULES)
    asker = Asker(make_rig(ears.entry(), lookup=lookup, rules=rules))
    assert (await asker.ask("both.test")).data == ["192.0.2.200", "192.0.2.7", "192.0.2.8"], "each is judged"
    assert ears.heard[0] == ("before", "both.test", None, ())
    for kind in ("A", "MX"):
        reply = await asker.ask("four.test", kind)
        assert (reply.code, reply.extended) == ("NXDOMAIN", (15, 'not_today: filter "it"'))
    assert asker.said() == [("four.test", "not_today", None)]
    assert len([heard for heard in ears.heard if heard[1] == "four.test"]) == 2


async def test_filters_hear_of_addresses_that_are_asked_for(make_rig: MakeRig) -> None:
    ears = Ears(before=lambda event: event.set_result("told.test") if event.address else None)
    asker = Asker(make_rig(ears.entry(), rules=RULES))
    assert (await asker.ask("7.100.51.198.in-addr.arpa", "PTR")).data == ["told.test."]
    assert ears.heard == [("before", None, "198.51.100.7", ())]


async def test_a_name_that_a_filter_gives_addresses_has_nothing_else(make_rig: MakeRig) -> None:
    ears = Ears(before=lambda event: event.set_result("192.0.2.200"))
    asker = Asker(make_rig(ears.entry(), rules=RULES))
    assert (await asker.ask("invented.test")).data == ["192.0.2.200"]
    reply = await asker.ask("invented.test", "MX")
    assert (reply.code, reply.data) == ("NOERROR", [])


@pytest.mark.parametrize("kind", ["A", "TXT"])
async def test_a_filter_that_fails_closes_the_name(make_rig: MakeRig, kind: str) -> None:
    def fail(_: ResolveEvent) -> None:
        raise ValueError("broken")

    asker = Asker(make_rig(Ears(before=fail).entry(), rules=RULES, limits=Limits(event_timeout_s=1.0)))
    reply = await asker.ask("four.test", kind)
    assert (reply.code, asker.said()) == ("NXDOMAIN", [("four.test", "filter_failed", None)])
