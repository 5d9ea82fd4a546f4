from __future__ import annotations

import argon2
import pytest

from doorward.config.passwords import hash_mistake, hash_password, verify_password

# Cheap on purpose: these tests are about the judgement, not about the cost.
CHEAP = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


def test_only_the_right_password_is_accepted() -> None:
    hashed = hash_password("pässword")
    assert hashed.startswith("$argon2id$")
    assert hash_mistake(hashed) == ""
    assert verify_password(hashed, "pässword")
    assert not verify_password(hashed, "password")


def test_the_same_password_never_has_the_same_hash() -> None:
    assert hash_password("x") != hash_password("x")


@pytest.mark.parametrize("text", ["", "x" * 256])
def test_a_password_that_no_client_could_send_is_not_hashed(text: str) -> None:
    with pytest.raises(ValueError, match="1 to 255 bytes"):
        hash_password(text)


@pytest.mark.parametrize(
    "hashed",
    ["", "hunter2", "$argon2id$", "$2b$12$abc", CHEAP.hash("x")[:-30], CHEAP.hash("x") + "="],
    ids=[
        "empty",
        "plain",
        "begun",
        "another kind",
        "cut",
        "too long",
    ],  # a hash in an id differs from run to run
)
def test_what_is_no_hash_is_explained_without_quoting_it_and_matches_nothing(hashed: str) -> None:
    mistake = hash_mistake(hashed)
    assert mistake
    assert not hashed or hashed not in mistake
    assert not verify_password(hashed, hashed)


@pytest.mark.parametrize(
    "cost",
    [
        "m=4294967,t=1,p=1",
        "m=65536,t=65,p=1",
        "m=65536,t=1,p=65",
        "m=8,t=1,p=2",
        "m=8,t=0,p=1",
        "m=8,t=1,p=0",
    ],
)
def test_a_hash_that_would_take_the_machine_down_is_refused(cost: str) -> None:
    hashed = CHEAP.hash("x").replace("m=8,t=1,p=1", cost)
    assert "cost is out of range" in hash_mistake(hashed)
    assert not verify_password(hashed, "x")


def test_a_password_that_is_not_text_matches_nothing() -> None:
    assert not verify_password(CHEAP.hash("x"), "\udc80")
