"""Rows for tests that need no training, and those that a small study leaves."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import MutableMapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pandas as pd

from bench.scores import metrics
from bench.spec import PROTOCOL, columns
from bench.store import schema
from bench.studies import STUDIES
from bench.studies.toy_grid.spec import ToySpec
from models.methods import METHODS

TOY = STUDIES["toy_grid"]
TOY_ROWS = schema.rows(ToySpec, {**metrics.columns(TOY.metrics()), **TOY.columns()})
OWN_METHODS: MutableMapping[str, Any] = cast("ChainMap[str, Any]", METHODS).maps[0]
"""Where a test sets a method: set in METHODS, it would stay there after the test."""
TODAY = TOY.today()
TOY_SAMPLES = schema.samples(TOY.sample_columns())

SMOKE = ["toy_grid", "--scale", "smoke", "--set", "epochs=2"]
TIMING = {"train_seconds", "cpu_seconds", "finished", "stack_size", "graph", "commit", "dirty"}

LABELS = {("svae_r", False): "sVAE", ("svae_r", True): "sVAE-r"}
LABELS |= {("alice", False): "ALI", ("alice", True): "ALICE"}


def row(spec: ToySpec, score: float | None = 4.7, **more: Any) -> dict[str, Any]:
    """A stored row of this spec; a score of None is a diverged run."""
    scores = {"inception_score": score, "mse_x": 0.1, "mse_z": 0.1, "modes": 5}
    if score is None:
        scores = {}
    return {
        "id": spec.id,
        "config": spec.config,
        "protocol": PROTOCOL,
        "label": LABELS.get((spec.method, spec.lam > 0), spec.method),
        "status": "diverged" if score is None else "ok",
        **{name: getattr(spec, name) for name in columns(ToySpec)},
        **scores,
        **({"high_quality": 0.9} if scores else {}),
        "n_samples": 1024,
        "n_splits": 1,
        "classifier": "exact posterior",
        "trace_epoch": [0, 10],
        "decoder_gradient": {"svae_r": [0.2, 1.0], "alice": [0.1, 0.5]},
        "commit": "0" * 40,
        "dirty": False,
        "suite": "0.1.0",
        "python": "3.11.7",
        "torch": "2.14.1",
        "numpy": "2.4.6",
        "device": "cpu",
        "device_name": "a processor",
        "threads": 1,
        "stack_size": 2,
        "train_seconds": 1.0,
        "cpu_seconds": 0.9,
        "finished": datetime(2026, 1, 1, tzinfo=UTC),
        "method_digest": TODAY.method(spec.method),
        "metric_digests": TODAY.filled(scores | {"high_quality": 0.9} if scores else {}),
        **more,
    }


def points(spec: ToySpec) -> dict[str, Any]:
    return {"id": spec.id, "x": [0.0] * 8, "x_rec": [0.5] * 8, "samples": [1.0] * 8}


def smoke(seeds: int = 1) -> list[ToySpec]:
    """The trainings of `SMOKE`."""
    return TOY.specs("smoke", seeds=seeds, given={"epochs": [2]})


def stored(folder: Path) -> pd.DataFrame:
    """Every column of the smoke study that is not about time or company, by id."""
    frame = pd.read_parquet(folder / "toy_grid" / "smoke").sort_values("id", ignore_index=True)
    assert frame["id"].is_unique
    frame["decoder_gradient"] = [repr(g) for g in frame["decoder_gradient"]]
    frame["metric_digests"] = [repr(digests) for digests in frame["metric_digests"]]
    frame["trace_epoch"] = [list(e) for e in frame["trace_epoch"]]
    return frame[[name for name in TOY_ROWS.names if name not in TIMING]]
