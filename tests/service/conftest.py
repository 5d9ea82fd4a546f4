"""Fixtures for tests of service/: an engine, for what filters open."""

from __future__ import annotations

from tests.engine.conftest import make_rig

__all__ = ["make_rig"]
