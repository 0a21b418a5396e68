"""Rows for tests that need no training."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from bench.scores import metrics
from bench.spec import PROTOCOL, columns
from bench.store import schema
from bench.studies import STUDIES
from bench.studies.toy_grid.spec import ToySpec

TOY = STUDIES["toy_grid"]
TOY_ROWS = schema.rows(ToySpec, {**metrics.columns(TOY.metrics()), **TOY.columns()})
TOY_SAMPLES = schema.samples(TOY.sample_columns())

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
        "finished": datetime(2026, 1, 1, tzinfo=UTC),
        **more,
    }


def points(spec: ToySpec) -> dict[str, Any]:
    return {"id": spec.id, "x": [0.0] * 8, "x_rec": [0.5] * 8, "samples": [1.0] * 8}
