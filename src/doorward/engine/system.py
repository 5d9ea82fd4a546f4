"""What the firewall itself connects to, because a filter of the operator's told it to: no policy, no user, a record.

Neither rules nor the built-in guards apply, and no filter hears of it. Routes to upstreams do apply.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from doorward.api.filters import ClientKind
from doorward.engine.connecting import dial_out, expect_alive
from doorward.engine.judgement import inputs_of, is_leading_to
from doorward.engine.origin import Origin
from doorward.policy.address import canonical
from doorward.policy.model import Action, Decision, Verdict

if TYPE_CHECKING:
    from doorward.api.sockets import SocketName
    from doorward.engine.connection import Connection
    from doorward.engine.engine import Engine

# Who the client is, where there is none.
NOBODY: Final = "0.0.0.0"
SYSTEM_REASON: Final = "system_socket"
SYSTEM_ORIGIN: Final = Origin("system", ClientKind.FILTER, NOBODY, 0)


def allow_for_system(engine: Engine, connection: Connection, filter_name: str) -> Decision:
    """Put on record that nobody was asked, and which filter did it."""
    is_own, now_s = engine.own_addresses.is_own, connection.started_us / 1e6
    inputs = inputs_of(connection.session, connection.target, None, now_s, is_own, connection.transport)
    decision = Decision(Action.ALLOW, SYSTEM_REASON, inputs, connection.ruling.policy.revision)
    connection.judged = decision
    connection.verdicts.append(Verdict(filter_name, "opened"))
    return decision


async def open_for_system(
    engine: Engine, connection: Connection, filter_name: str, source: SocketName | None
) -> None:
    """Look up and dial. Raises LinkError kinds."""
    target, is_own = connection.target, engine.own_addresses.is_own
    decision = allow_for_system(engine, connection, filter_name)
    if target.address is not None:
        connection.addresses = {target.address: decision}
    else:
        assert target.host is not None
        found = dict.fromkeys(canonical(a) for a in await engine.resolver.resolve(target.host))
        connection.addresses = {
            a: decision._replace(inputs=decision.inputs._replace(address=a, own=is_leading_to(a, is_own)))
            for a in found
        }
        expect_alive(connection)
    await dial_out(engine, connection, source)
