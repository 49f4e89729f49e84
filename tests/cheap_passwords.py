"""Passwords that cost next to nothing to check, so that all the rest of a login shows in its time."""

import pytest
from argon2 import PasswordHasher, extract_parameters

from gateway import accounts


def use(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until the end of the test hashes are cheap, the one of nobody like those of people."""
    cheap = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    monkeypatch.setattr(accounts, "_hasher", cheap)
    monkeypatch.setattr(accounts, "RFC_9106_LOW_MEMORY", extract_parameters(cheap.hash("x")))
