"""Heartbeats: whatever lies in their folder, the monitor goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench.engine.progress import Monitor, clear_drafts

BEAT = {"key": "a", "share": 0.5, "seconds": 2.0, "process": "host-1"}
ODD: list[Any] = [
    *({**BEAT, **odd} for odd in ({"key": ["a"]}, {"key": {}}, {"share": "x"}, {"share": 7})),
    *({**BEAT, "seconds": seconds} for seconds in (float("nan"), float("inf"), -1, None)),
    *({**BEAT, "process": process} for process in ("../../kept", "*", "/", 3, None)),
    *({name: BEAT[name] for name in BEAT if name != missing} for missing in BEAT),
    *([], None, 3, "text", {}),
]


@pytest.mark.parametrize("odd", [*map(json.dumps, ODD), "", "{", "[" * 100_000, "\0"], ids=str)
def test_an_odd_heartbeat_counts_for_nothing(tmp_path: Path, odd: str) -> None:
    progress = tmp_path / "_smoke" / "progress" / "host-1"
    progress.mkdir(parents=True)
    (tmp_path / "_smoke" / "tmp").mkdir()
    kept, draft = tmp_path / "kept-1", tmp_path / "_smoke" / "tmp" / "host-1-draft"
    for path in (kept, draft):
        path.write_text("")
    monitor = Monitor(0, 0, 0, 2, progress)
    monitor.pending = {"a": 10.0}
    (progress / "odd.json").write_text(odd)
    before = monitor._state()[0]
    clear_drafts(progress)
    assert (before, draft.exists(), kept.exists()) == (0.0, True, True)
    (progress / "a.json").write_text(json.dumps(BEAT))
    assert monitor._state()[0] == 0.5
    clear_drafts(progress)
    assert (draft.exists(), kept.exists()) == (False, True)
