from __future__ import annotations

from typing import Any

from doorward.engine.udp.client_side import Nobody
from doorward.engine.udp.destination import FarEnd


def test_nobody_takes_nothing_and_can_be_closed_again_and_again() -> None:
    nobody, nothing = Nobody(), Any
    assert not nobody.deliver(b"x", FarEnd(("192.0.2.1", 9)))
    nobody.forget(nothing)  # type: ignore[arg-type]  # it is not looked at
    nobody.close()
    nobody.close()
    assert nobody.notes() == []
