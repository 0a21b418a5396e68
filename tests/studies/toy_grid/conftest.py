"""What all tests of the toy study share."""

from __future__ import annotations

import pytest

from bench.render import intervals


@pytest.fixture(autouse=True)
def fewer_resamples(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth of the resamples, but where a test is about the level of the report."""
    if "level" not in request.node.name:
        monkeypatch.setattr(intervals, "RESAMPLES", 10_000)
