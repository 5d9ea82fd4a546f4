"""Both kinds of clients that are caught can stand where either is meant."""

from __future__ import annotations

import pytest

from doorward.entry.captured_answers import Answers
from doorward.entry.captured_program import CapturedProgram
from doorward.entry.caught import CaughtClients, SendsAnswers
from doorward.entry.routed_answers import RoutedAnswers
from doorward.entry.routed_clients import RoutedClients


def promised(protocol: type) -> set[str]:
    return {name for name in vars(protocol) if not name.startswith("_")}


@pytest.mark.parametrize("kind", [CapturedProgram, RoutedClients])
def test_clients_have_what_is_asked_of_them(kind: type) -> None:
    missing = {name for name in promised(CaughtClients) if not hasattr(kind, name)}
    assert missing <= {"engine", "has_room"}  # which are each one's own


@pytest.mark.parametrize("kind", [Answers, RoutedAnswers])
def test_answers_are_sent_in_the_same_way(kind: type) -> None:
    assert all(hasattr(kind, name) for name in promised(SendsAnswers))
