"""From stored rows of the theory study to the data frames that tables and figures are made of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench.render import intervals
from bench.render.figures import rank
from bench.studies.study import Study
from bench.studies.theory.spec import EXACT

DENSITIES = ("vae", "vae_z", "vae_xz")
"""Methods that are trained by the densities themselves, without a critic."""
LEAST = 0.1
"""Stops with a KL_s of at most so many nats have gradients that samples can't tell from noise."""
WORST = 1e6
"""What an infinite divergence or distance counts as, and that of a diverged training."""


def runs(study: Study, results: Path, scale: str) -> pd.DataFrame:
    """Returns one row a finished training of the study's own settings, or all rows if none is.

    `name` says method and critic. `attrs["others"]` counts rows of other settings or precision, and
    `attrs["bad"]` counts files that could not be read. A diverged training has WORST divergences
    and energy distances, no quality and no modes.
    """
    table, bad = study.load(results, scale)
    every = table.to_pandas()
    seeds = int(every["seed"].max()) + 1
    own = {spec.config for spec in study.specs(scale, seeds=seeds)}
    mine = every["config"].isin(own) & (every["precision"] == "float32")
    frame = every[mine] if mine.any() else every
    frame = frame.assign(rank=frame["method"].map(order))
    by = ["experiment", "dimension", "distance", "critic", "critic_steps", "lam", "rank", "seed"]
    frame = frame.sort_values(by, ignore_index=True)
    gone = frame["status"] == "diverged"
    for column in ("kl_pq", "kl_qp", "kl_s", "energy_x", "energy_z", "prior_pq", "prior_qp"):
        frame[column] = frame[column].mask(gone, WORST).clip(upper=WORST)
    frame["modes"] = frame["modes"].mask(gone, 0)
    frame["high_quality"] = frame["high_quality"].mask(gone, 0.0)
    frame["name"] = [named(*each) for each in frame[["method", "label", "critic"]].to_numpy()]
    frame.attrs |= {"bad": len(bad), "others": len(every) - len(frame)}
    return frame


def order(method: str) -> int:
    """Returns the place of a method in tables: first those without a critic."""
    known = [*DENSITIES, "svae_exact"]
    return known.index(method) if method in known else len(known) + rank(method)


def named(method: str, label: str, critic: str) -> str:
    """Returns a name of a method with its critic."""
    if method in DENSITIES:
        return label
    return f"{label}, {'optimal' if critic == EXACT else 'learned'} critic"


def part(frame: pd.DataFrame, **values: Any) -> pd.DataFrame:
    """Returns the rows that have these values."""
    for name, value in values.items():
        frame = frame[frame[name] == value]
    return frame


def most_updates(frame: pd.DataFrame) -> pd.DataFrame:
    """Returns the trainings with the largest number of the critic's updates among these."""
    return part(frame, critic_steps=frame["critic_steps"].max())


def traced(row: pd.Series) -> pd.DataFrame:
    """Returns what was traced of one training: a row a stop, with its number of batches."""
    columns = {name: np.asarray(values, dtype=float) for name, values in row["traces"]}
    return pd.DataFrame({"batch": row["trace_batch"], **columns})


def traces(frame: pd.DataFrame, fields: Sequence[str] = ()) -> pd.DataFrame:
    """Returns what was traced of all trainings, with these fields and the seed beside."""
    kept = ["seed", *fields]
    parts = [
        traced(row).assign(**{name: row[name] for name in kept}) for _, row in frame.iterrows()
    ]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def away(group: pd.DataFrame) -> pd.DataFrame:
    """Returns the stops of these trainings, but the first, that are LEAST nats from the optimum.

    The critic has not learned anything at the first stop.
    """
    found = traces(group, ["dimension"])
    return found[(found["kl_s"] > LEAST) & (found["batch"] > 0)] if len(found) else found


def paired(
    a: pd.DataFrame, b: pd.DataFrame, column: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the values of both and their seed, for each configuration and seed that both have."""
    both = intervals.both(a, b, column)
    x, y = both.to_numpy().T
    return x, y, both.index.get_level_values("seed").to_numpy()
