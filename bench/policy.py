"""What one judgement costs, with few rules and with many.

Rules are spread over destinations as in a grown policy: names, names below a zone, networks, networks for some
clients. Microseconds, the best of several rounds that take turns (the machine's noise only ever adds). One case is
asked the same again and again, and finds everything in the processor's caches; the cases "in turn" ask for one
destination after the other over all rules, and do not.

    python -m bench.policy --rules 100 100000
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Network, ip_address

from doorward.policy.evaluation import Policy
from doorward.policy.model import UNKNOWN, Action, Inputs, PortRange, Rule

ROUNDS = 7
JUDGEMENTS_PER_ROUND = 5_000
IN_TURN = (2_000, 20_000)
RULES_MIN = 20

HTTPS = (PortRange("tcp", 443, 443),)
OFFICE = (IPv4Network("192.168.0.0/16"),)
ASKED = Inputs("tcp", ip_address("192.168.1.5"), None, ip_address("203.0.113.9"), 443, None, frozenset(), 600)


def rule(number: int) -> Rule:
    """Four kinds of rules in turn; every fifth denies."""
    action = Action.DENY if number % 5 == 4 else Action.ALLOW
    name = f"rule {number}"
    match number % 4:
        case 0:
            return Rule(name, action, number, to_names=(f"host{number}.example.org",), ports=HTTPS)
        case 1:
            return Rule(name, action, number, to_names=(f"*.zone{number}.example.net",), ports=HTTPS)
        case 2:
            return Rule(name, action, number, to_networks=(IPv4Network((0x0B00_0000 + 16 * number, 28)),))
        case _:
            network = IPv4Network((0x1400_0000 + 256 * number, 24))
            return Rule(name, action, number, sources=OFFICE, to_networks=(network,))


def asked_for(number: int) -> Inputs:
    """What that rule matches."""
    match number % 4:
        case 0:
            return ASKED._replace(host=f"host{number}.example.org")
        case 1:
            return ASKED._replace(host=f"a.b.zone{number}.example.net")
        case 2:
            return ASKED._replace(address=ip_address(0x0B00_0000 + 16 * number + 1))
        case _:
            return ASKED._replace(address=ip_address(0x1400_0000 + 256 * number + 1))


def cases(count: int) -> dict[str, list[Inputs]]:
    """What is asked; each of the rules that are asked for alone is among the last ones."""
    last = count - count % 20 - 20
    single = {
        "no rule matches": ASKED,
        "no rule matches, IPv6": ASKED._replace(address=ip_address("2001:db8::9")),
        "a network matches": asked_for(last + 2),
        "a network and a client match": asked_for(last + 3),
        "a name matches": asked_for(last),
        "a name below a zone matches": asked_for(last + 1),
        "a name, not yet resolved": asked_for(last)._replace(address=UNKNOWN),
        "a guarded address": ASKED._replace(address=ip_address("127.0.0.1")),
    }
    order = random.Random(count)  # noqa: S311 - the same order in every run, and nothing to guess
    in_turn = {
        f"{many:,} destinations in turn": [asked_for(order.randrange(count)) for _ in range(many)]
        for many in IN_TURN
    }
    return {case: [inputs] * JUDGEMENTS_PER_ROUND for case, inputs in single.items()} | in_turn


def _judgement_us(policy: Policy, asked: Sequence[Inputs]) -> float:
    judge = policy.judge
    start = time.perf_counter()
    for inputs in asked:
        judge(inputs)
    return (time.perf_counter() - start) / len(asked) * 1e6


def measure(counts: Sequence[int]) -> dict[str, list[float]]:
    """For each case the microseconds of one judgement, in the order of `counts`."""
    sides = [(Policy([rule(n) for n in range(count)], "bench"), cases(count)) for count in counts]
    return {
        case: [
            min(times)
            for times in zip(
                *([_judgement_us(policy, asked[case]) for policy, asked in sides] for _ in range(ROUNDS)),
                strict=True,
            )
        ]
        for case in sides[0][1]
    }


def _table(counts: Sequence[int], measured: Mapping[str, Sequence[float]]) -> str:
    head = f"{'microseconds a judgement':<32}" + "".join(f"{count:>14,}" for count in counts)
    rows = [f"{case:<32}" + "".join(f"{us:>14.2f}" for us in row) for case, row in measured.items()]
    return "\n".join([head, *rows])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rules", type=int, nargs="+", default=[100, 100_000], help="at least 20 each")
    parser.add_argument("--json", action="store_true", help="one JSON object: a list of times for each case")
    given = parser.parse_args()
    if min(given.rules) < RULES_MIN:
        parser.error(f"at least {RULES_MIN} rules each")
    measured = measure(given.rules)
    print(json.dumps(measured) if given.json else _table(given.rules, measured))


if __name__ == "__main__":
    main()
