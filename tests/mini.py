"""A miniature study whose report is known by heart and committed.

    python -m tests.mini      makes the report again; read the difference before committing it

Two configurations, two seeds, lambda 0 and 0.1, both methods: 16 trainings, of which one is
missing (ALI, configuration 1, seed 1) and one diverged (sVAE, configuration 0, seed 0).
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa

from bench import report
from bench.store.rows import to_bytes
from bench.studies import STUDIES
from tests.rows import TOY_ROWS, TOY_SAMPLES, points, row

FOLDER = Path(tempfile.mkdtemp(prefix="mini-"))  # its rows carry digests of today's source
atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)
REPORT = Path(__file__).parent / "fixtures" / "mini_report"

# (score, high_quality, mse_x) of configuration 0 seeds 0, 1 and configuration 1 seeds 0, 1
SCORES: dict[tuple[str, float], list[tuple[float | None, float, float]]] = {
    ("alice", 0.0): [(1.0, 0.99, 3.2), (4.9, 0.85, 4.0), (4.7, 0.3, 5.0)],
    ("svae_r", 0.0): [(None, 0.0, 0.0), (4.9, 0.9, 4.0), (4.8, 0.95, 5.0), (3.0, 0.9, 6.0)],
    ("alice", 0.1): [(4.95, 0.9, 0.1), (4.9, 0.5, 0.2), (4.0, 0.9, 0.6), (4.7, 0.9, 0.4)],
    ("svae_r", 0.1): [(4.97, 0.95, 0.1), (4.9, 0.9, 0.2), (4.8, 0.9, 0.4), (4.9, 0.9, 0.3)],
}


def rows() -> list[dict[str, Any]]:
    specs = STUDIES["toy_grid"].specs("smoke", seeds=2)
    configs = list(dict.fromkeys(spec.config for spec in specs))
    found = []
    for (method, lam), scores in SCORES.items():
        cell = [s for s in specs if (s.method, s.lam) == (method, lam)]
        cell.sort(key=lambda s: (configs.index(s.config), s.seed))
        for spec, (score, quality, mse) in zip(cell, scores, strict=False):
            metrics = {"high_quality": quality, "mse_x": mse} if score is not None else {}
            found.append(row(spec, score, **metrics))
    return found


def build() -> report.Page:
    return report.build("toy_grid", "smoke", FOLDER)


def store() -> None:
    """Writes rows and samples as published results."""
    folder = FOLDER / "toy_grid"
    folder.mkdir(parents=True, exist_ok=True)
    content = to_bytes(pa.Table.from_pylist(rows(), schema=TOY_ROWS))
    (folder / "smoke.parquet").write_bytes(content)
    specs = STUDIES["toy_grid"].specs("smoke", seeds=2)
    content = to_bytes(pa.Table.from_pylist(list(map(points, specs)), schema=TOY_SAMPLES))
    (folder / "smoke_samples.parquet").write_bytes(content)


def main() -> None:
    store()
    REPORT.mkdir(parents=True, exist_ok=True)
    for name, text in build().texts().items():
        (REPORT / name).write_text(text, encoding="utf-8")


store()

if __name__ == "__main__":
    main()
