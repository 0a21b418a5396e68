"""What there is to say of one stored training, on a terminal as on a page."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from bench import plugins
from bench.cli import duration, options
from bench.frame import RESULTS
from bench.spec import columns
from bench.store.provenance import REFERENCE
from bench.store.schema import IDENTITY, PROVENANCE, better
from bench.studies.study import Study

if TYPE_CHECKING:
    from bench.frame import Found
    from bench.render.drawings import Drawing

APART = ("study", "scale", "method", "lam", "seed")
"""Fields of a spec that the title says."""


@dataclass(frozen=True)
class Score:
    """A column that says how good a run is: its heading and digits in tables, which is better."""

    column: str
    heading: str
    digits: int | None
    about: str

    @property
    def better(self) -> str:
        """Returns "higher" or "lower", "" where nothing says so: larger values come first."""
        return better(self.about)

    def order(self, values: pd.Series, status: pd.Series) -> pd.Series:
        """Returns numbers that sort runs, the best first: infinite for what is not finite."""
        keys = values.astype(float) * (1 if self.better == "lower" else -1)
        return keys.where(status != "diverged", math.inf).fillna(math.inf)


def scores(study: Study[Any]) -> dict[str, Score]:
    """Returns the columns that say how good a run is, metrics first, by column."""
    about = study.explanations()
    metrics = {each.columns[0]: each for each in study.metrics()}
    names = [name for name in (*metrics, *study.columns()) if better(about[name])]
    found = {}
    for name in names:
        metric = metrics.get(name)
        heading = metric.heading if metric else name.replace("_", " ")
        found[name] = Score(name, heading, metric.digits if metric else None, about[name])
    return found


def shown(value: Any, digits: int | None = None) -> str:
    """Returns a value of a row in words; a list or a dict by the number of its values."""
    if value is None or value is pd.NaT:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        if not math.isfinite(value):
            return str(value).replace("inf", "∞")
        small = digits is not None and abs(value) < 10**6
        return f"{value:.{digits}f}" if small else f"{value:.4g}"
    if isinstance(value, list):
        return f"{len(value)} values"
    if isinstance(value, dict):
        return f"{len(value)} by name"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M} UTC"
    return f"{value[:12]}…" if re.fullmatch("[0-9a-f]{64}", str(value)) else str(value)


@dataclass(frozen=True)
class Details:
    """Says everything of a training: texts by heading, scores in a table, and drawings."""

    id: str
    title: str
    place: str  # the study and scale
    remarks: Sequence[str]
    spec: Mapping[str, str]
    scores: Sequence[tuple[Score, str, str]]  # with its value, and its place among like runs
    like: str  # which runs these are, "" for too few
    settings: Mapping[str, str]
    origin: Mapping[str, str]
    drawings: Sequence[Drawing]
    commands: Mapping[str, str]


def details(
    found: Found,
    kept: Mapping[str, Any] | None,
    like: pd.DataFrame,
    other: Mapping[str, Any] | None = None,
) -> Details:
    """Returns what there is to say of a stored row.

    `kept` is its row of samples, None if nothing was kept. `like` has the stored runs of its label,
    lambda, `Study.apart` and `other`, itself among them. `other` are its settings that are not the
    study's own; None says that all runs have the study's own.
    """
    study, row, folder = found
    spec, given = columns(study.kind), row
    rated = scores(study)
    told = [
        (score, shown(row[name], score.digits), _place(score, row, like))
        for name, score in rated.items()
        if row[name] is not None
    ]
    skip = {*rated, *spec, *IDENTITY, *PROVENANCE}
    skip |= {name for name in row if name.startswith("trace_") or _traced(row, name)}
    settings = {name: shown(each) for name, each in row.items() if name not in skip}
    settings = {name: each for name, each in settings.items() if each != "–"}
    lam = f"λ = {row['lam']:g}"
    differs = [f"{name} {shown(value)}" for name, value in (other or {}).items()]
    differs = ["the study's own settings"] if other is not None and not other else differs
    apart = [f"{name} {row[name]}" for name in study.apart]
    among = ", ".join([f"{row['label']} at {lam}", *apart, *differs])
    arrays = study.arrays(kept) if kept else {}
    return Details(
        id=row["id"],
        title=f"{row['label']} at {lam}, seed {row['seed']}",
        place=f"{row['study']} at scale {row['scale']}",
        remarks=_remarks(study, row, told, arrays),
        spec={name: shown(given[name]) or '""' for name in spec if name not in APART},
        scores=told,
        like=f"{len(like)} runs of {among}" if len(like) > 1 else "",
        settings=settings,
        origin=_origin(study, row, folder),
        drawings=study.drawings(row, arrays),
        commands=commands(study, row, folder),
    )


def _traced(row: Mapping[str, Any], name: str) -> bool:
    """Says whether a column has the values of a trace, which are drawn."""
    lengths = {len(row[each] or ()) for each in row if each.startswith("trace_")}
    value = row[name]
    lists = [*value.values()] if isinstance(value, dict) else [value]
    return bool(lists) and all(isinstance(each, list) and len(each) in lengths for each in lists)


def _place(score: Score, row: Mapping[str, Any], like: pd.DataFrame) -> str:
    """Returns a run's place among like runs that have the score, "" for a run that is alone."""
    like = like[like[score.column].notna() | (like["status"] == "diverged")]
    if len(like) < 2:
        return ""
    order = score.order(like[score.column], like["status"])
    own = order[like["id"] == row["id"]]
    return f"{1 + int((order < own.iloc[0]).sum())} of {len(like)}" if len(own) else ""


def _remarks(
    study: Study[Any],
    row: Mapping[str, Any],
    told: Sequence[Any],
    arrays: Mapping[str, Any],
) -> list[str]:
    found = []
    if row["status"] == "diverged":
        found.append("This training diverged: parameters or outputs are not finite.")
    elif not told:
        found.append("This row has no scores.")
    if why := study.today().stale(row):
        found.append(f"This row is stale: {why} made it. bench.run --redo trains it again.")
    if not arrays:
        found.append("No samples of this training were kept.")
    elif str(row.get("data")).startswith("celeba"):
        found.append("Pictures of CelebA must not be passed on.")
    if row.get("stand_in"):
        found.append("The suite drew the images of this training: they are no real data.")
    return found


def _origin(study: Study[Any], row: Mapping[str, Any], folder: Path) -> dict[str, str]:
    commit = (row["commit"] or "unknown")[:10] + (" with changes" if row["dirty"] else "")
    versions = [f"{name} {row[name]}" for name in ("torch", "numpy", "python") if row[name]]
    threads, company = row["threads"], (row["stack_size"] or 1) - 1
    device = f"{row['device']} ({row['device_name']})"
    device += f", {threads} thread{'s' * (threads != 1)}" if threads else ""
    beside = f", beside {company} other training{'s' * (company != 1)}" if company else ""
    graph = ", by a CUDA graph" if row["graph"] else ""
    seconds = row["train_seconds"]
    time = f"{duration(seconds)} of training{beside}{graph}" if seconds is not None else "unknown"
    theirs = ", ".join(f"{name} ({each})" for name, each in (row["plugins"] or {}).items())
    return {
        "code": ", ".join([f"commit {commit}", *versions]),
        "device": device,
        "time": f"{time}; finished {shown(row['finished'])}",
        **({"plug-ins": theirs} if theirs else {}),
        "source": study.today().stale(row) or "today's",
        "stored in": str(folder / row["study"] / row["scale"]),
    }


def commands(study: Study[Any], row: Mapping[str, Any], folder: Path) -> dict[str, str]:
    """Returns by purpose what to type for a row: to train it again, to use it, to read it."""
    id, own = row["id"], folder not in (RESULTS, REFERENCE)
    files = [*map(_file, row["plugins"] or ())]
    given = options(None, folder if own else None, files)
    argument = f"{id!r}, results={str(folder)!r}" if own else repr(id)
    images = options(data=row.get("data_place"))  # a user's own
    found = {"train it again and compare": f"python -m bench.run --id {id}{given}{images}"}
    if study.store(folder, row["scale"]).weights_of(id).is_file():
        found["draw samples"] = f"python -m bench.model sample {id} --out samples.png{given}"
        found["load it in Python"] = _python("load", argument, files)
    elif row["status"] == "ok" and type(study).model is not Study.model:
        trained = _python("train", argument, files)
        found["no weights were kept; train it in Python"] = trained
    return {**found, "all its numbers": f"python -m bench.show {id} --json{given}"}


def _file(name: str) -> str:
    """Returns where the plug-in of this name is, its name if it is not loaded."""
    if name not in plugins.LOADED:
        return name
    path = Path(plugins.LOADED[name].path)
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _python(name: str, argument: str, files: Sequence[str]) -> str:
    """Returns a line of Python that calls `load` or `train` after loading these plug-ins."""
    call = f"model = {name}({argument})"
    if not files:
        return f"from bench import {name}; {call}"
    paths = ", ".join(f"Path({each!r})" for each in files)
    begin = f"from pathlib import Path; from bench import {name}, plugins"
    return f"{begin}; plugins.load([{paths}]); {call}"
