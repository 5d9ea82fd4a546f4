"""What one judgement costs, with few rules and with many.

Rules are spread over destinations as in a grown policy: names, names below a zone, networks, networks for some
clients. Prints a table of microseconds (the best of several rounds: the machine's noise only ever adds).

    python bench/policy.py --rules 100 100000
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from ipaddress import IPv4Network, ip_address
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

from doorward.policy.evaluation import Policy
from doorward.policy.model import UNKNOWN, Action, Inputs, PortRange, Rule

ROUNDS = 7
JUDGEMENTS_PER_ROUND = 5_000

HTTPS = (PortRange("tcp", 443, 443),)
OFFICE = (IPv4Network("192.168.0.0/16"),)


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


def cases(count: int) -> dict[str, Inputs]:
    """What is asked; each of the rules asked for is among the last ones."""
    last = count - count % 20 - 20
    asked = Inputs(
        "tcp", ip_address("192.168.1.5"), None, ip_address("203.0.113.9"), 443, None, frozenset(), 600
    )
    named = asked._replace(host=f"host{last}.example.org")
    return {
        "no rule matches": asked,
        "no rule matches, IPv6": asked._replace(address=ip_address("2001:db8::9")),
        "a network matches": asked._replace(address=ip_address(0x0B00_0000 + 16 * (last + 2) + 1)),
        "a network and a client match": asked._replace(
            address=ip_address(0x1400_0000 + 256 * (last + 3) + 1)
        ),
        "a name matches": named,
        "a name below a zone matches": asked._replace(host=f"a.b.zone{last + 1}.example.net"),
        "a name, not yet resolved": named._replace(address=UNKNOWN),
        "a guarded address": asked._replace(address=ip_address("127.0.0.1")),
    }


def best_us(judge: Callable[[Inputs], object], inputs: Inputs) -> float:
    best = float("inf")
    for _ in range(ROUNDS):
        start = time.perf_counter()
        for _ in range(JUDGEMENTS_PER_ROUND):
            judge(inputs)
        best = min(best, time.perf_counter() - start)
    return best / JUDGEMENTS_PER_ROUND * 1e6


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--rules", type=int, nargs="+", default=[100, 100_000], help="at least 20 each")
    counts: list[int] = arguments.parse_args().rules
    columns: list[dict[str, float]] = []
    for count in counts:
        start = time.perf_counter()
        policy = Policy([rule(number) for number in range(count)], "bench")
        print(f"{count:>9,} rules made and indexed in {time.perf_counter() - start:.2f} s")
        columns.append({case: best_us(policy.judge, inputs) for case, inputs in cases(count).items()})
    print(f"\n{'microseconds a judgement':<32}" + "".join(f"{count:>14,}" for count in counts))
    for case in columns[0]:
        print(f"{case:<32}" + "".join(f"{column[case]:>14.2f}" for column in columns))


if __name__ == "__main__":
    main()
