from __future__ import annotations

import resource

import pytest

from doorward.service.descriptors import PER_CLIENT, RESERVED, clients_that_fit, raise_limit


def test_the_soft_limit_is_raised_to_the_hard_one(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 5000))
    monkeypatch.setattr(resource, "setrlimit", lambda _, wanted: asked.append(wanted))
    assert raise_limit() == 5000
    assert asked == [(5000, 5000)]


@pytest.mark.parametrize("error", [OSError("no"), ValueError("no")])
def test_where_it_cannot_be_raised_it_stays(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def refuse(*_: object) -> None:
        raise error

    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 5000))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    assert raise_limit() == 1024


@pytest.mark.parametrize("descriptors", [8, 128, 1024, 20_000, 1_048_576])
def test_as_many_clients_as_fit_beside_the_reserve(descriptors: int) -> None:
    clients = clients_that_fit(descriptors)
    assert clients >= 1
    assert clients * PER_CLIENT <= max(PER_CLIENT, descriptors - min(RESERVED, descriptors // 4))


def test_a_process_with_hardly_any_descriptors_still_serves_somebody() -> None:
    assert clients_that_fit(1) == 1
