from __future__ import annotations

from doorward.service.pauses import FIRST_S, HEALTHY_S, MAX_S, Pauses


def test_the_first_death_is_mended_at_once_and_a_row_of_them_ever_more_slowly() -> None:
    pauses = Pauses()
    found = [pauses.after(0.1) for _ in range(12)]
    assert found[:4] == [0.0, FIRST_S, 2 * FIRST_S, 4 * FIRST_S]
    assert found[-2:] == [MAX_S, MAX_S]


def test_who_has_lived_long_is_started_at_once_again() -> None:
    pauses = Pauses()
    for _ in range(12):
        pauses.after(0.1)
    assert pauses.after(HEALTHY_S) == 0.0
    assert pauses.after(0.1) == FIRST_S
