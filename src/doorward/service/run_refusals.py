"""What a launched program was refused: counted while it runs, told at its end, with rules that would have allowed it.

Everything told here was said by the program; it is escaped for terminals, and quoted as TOML has it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from doorward.wire.printable import printable

if TYPE_CHECKING:
    from pathlib import Path

    from doorward.engine.engine import Recorder
    from doorward.record.model import Record
    from doorward.service.run_learning import Learning

# Different refusals that are kept apart; a program that scans has the rest counted in one number.
REFUSALS_MAX: Final = 1000
# Of them, those that are shown to people; a file has them all.
SHOWN_MAX: Final = 20
# What rules have decided, or guards that a rule opens; everything else is beyond them.
_BY_RULES: Final = ("rule_deny", "default_deny", "guarded_")
_NAME_CHARACTERS_MAX: Final = 200
_RESOLVE: Final = "resolve"
# What most who ask for a name want next. Their port is not known: they were refused before they could name it.
_USUAL: Final = "tcp/443"


class Refused(NamedTuple):
    """One thing that was refused, or failed, and why; the same again is counted."""

    action: str
    transport: str
    host: str
    port: int
    reason: str
    rule: str | None
    is_name: bool

    @property
    def where(self) -> str:
        """For people."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        asked = f"name {host}" if self.is_name else f"{self.transport} {host}:{self.port}"
        return printable(asked, _NAME_CHARACTERS_MAX)

    @property
    def word(self) -> str:
        """Whether somebody has said no, or it did not work."""
        return "refused" if self.action == "deny" else "failed "

    @property
    def why(self) -> str:
        """For people."""
        reason = printable(self.reason)
        if self.action != "deny" and self.is_name:
            return f"could not be looked up ({reason})"
        return f"{reason}  rule: {printable(self.rule) if self.rule is not None else 'none'}"

    @property
    def allowing(self) -> str | None:
        """The smallest rule that would have allowed it, as TOML; None if no rule would have."""
        if self.action != "deny" or not self.reason.startswith(_BY_RULES) or not self.host:
            return None
        protocol = _USUAL if self.is_name else f"{self.transport}/{self.port}"
        lines = [
            "[[rule]]",
            f"name = {json.dumps(f'allow {self.host} {protocol}')}",
            'action = "allow"',
            f"to = [{json.dumps(self.host)}]",
            f'protocols = ["{protocol}"]'
            + ("  # a guess: the name was refused first" if self.is_name else ""),
        ]
        return "\n".join(lines)


class RefusalCounts:
    """What was refused, and how often. `more` counts what there was no room for."""

    def __init__(self) -> None:
        self.counts: dict[Refused, int] = {}
        self.more = 0

    def count(self, record: Record) -> None:
        """One more that was not allowed."""
        refused = Refused(
            action=record.action,
            transport=record.transport,
            host=record.host or record.address or "",
            port=record.port,
            reason=record.reason,
            rule=record.rule,
            is_name=record.operation == _RESOLVE,
        )
        known = self.counts.get(refused)
        if known is None and len(self.counts) >= REFUSALS_MAX:
            self.more += 1
        else:
            self.counts[refused] = (known or 0) + 1

    def told(self) -> Iterator[str]:
        """Lines for people: what, how often, by which rule; then the rules to paste. Nothing if all was allowed."""
        ordered = sorted(self.counts.items(), key=lambda item: -item[1])
        for refused, count in ordered[:SHOWN_MAX]:
            yield f"{refused.word} {count:>4}x  {refused.where}  {refused.why}"
        left = sum(count for _, count in ordered[SHOWN_MAX:]) + self.more
        if left:
            yield f"and {left} more; they are in the log"
        rules = list(dict.fromkeys(r.allowing for r, _ in ordered[:SHOWN_MAX] if r.allowing is not None))
        if rules:
            yield "these rules would have allowed it; put them before the rules that refuse:"
            for rule in rules:
                yield ""
                yield from rule.split("\n")

    def as_data(self) -> dict[str, Any]:
        """The same for programs."""
        return {
            "refused": [
                {
                    "action": refused.action,
                    "transport": refused.transport,
                    "host": refused.host,
                    "port": refused.port,
                    "operation": _RESOLVE if refused.is_name else "connect",
                    "reason": refused.reason,
                    "rule": refused.rule,
                    "count": count,
                    "allowing": refused.allowing,
                }
                for refused, count in self.counts.items()
            ],
            "more": self.more,
        }


class Refusals(RefusalCounts):
    """A recorder that looks at what passes through it on its way to the log."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self._recorder = recorder
        self.refuses = recorder.refuses

    def append(self, record: Record) -> None:
        """See `Recorder`."""
        if record.action != "allow":
            self.count(record)
        self._recorder.append(record)


class Ran(NamedTuple):
    """How it was: the program's exit status, what was refused, and where the records are.

    `refusals` are None when the firewall that the program had joined ended before it could tell them; `log` is None
    when that firewall has it.
    """

    status: int
    refusals: RefusalCounts | None
    log: Path | None = None
    is_own_log: bool = False
    learnt: Learning | None = None
