"""From stored rows of an image study to the data frames that tables and figures are made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench.render.figures import rank
from bench.scores.metrics import OURS
from bench.spec import columns
from bench.studies.images.spec import ImageSpec
from bench.studies.study import Study

CELL = ("method", "lam", "seed", "precision")
"""What rows of one table may differ in."""
SETTINGS = [name for name in columns(ImageSpec) if name not in CELL]
"""What they share."""
SWEPT = ("svae_r", "alice", "alice_sigmoid")
"""Methods whose claims and questions are about lambda."""
OWN_UNITS = ("svae_r_density",)
"""Methods whose lambda weighs something else."""


@dataclass(frozen=True)
class Asked:
    """What a report is asked for: a study at a scale, its results, others to compare with."""

    study: Study
    scale: str
    results: Path
    other: Path | None


def runs(study: Study, results: Path, scale: str, like: pd.DataFrame | None = None) -> pd.DataFrame:
    """One row a finished training, all at the same settings and at one precision.

    The settings are those of `like` where there are such rows, else the study's own, else the
    most frequent of the images that were trained on last; the precision is the first of
    `ImageSpec.PRECISIONS` that there is. `attrs["others"]` counts the rows at other settings,
    `attrs["precisions"]` those at each other precision, `attrs["bad"]` the files that could not be
    read; `attrs["elsewhere"]` are the ids of rows at other settings.
    """
    table, bad = study.load(results, scale)
    frame = table.to_pandas()
    theirs = [] if like is None else like[SETTINGS].head(1).to_dict("records")
    last = frame[frame["data"].isin(frame.sort_values("finished")["data"].tail(1))]
    common = last[SETTINGS].value_counts().reset_index().head(1).to_dict("records")
    found = (_alike(frame, each) for each in (*theirs, own_settings(study, scale), *common))
    alike = next(filter(len, found), frame)
    kept, *rounded = _by_precision(alike)
    kept.attrs |= {"bad": len(bad), "others": len(frame) - len(alike)}
    kept.attrs["elsewhere"] = {*frame["id"]} - {*alike["id"]}
    kept.attrs["precisions"] = {each["precision"].iloc[0]: len(each) for each in rounded}
    return kept


def samples(asked: Asked) -> pd.DataFrame:
    """What is kept of trainings for pictures, by their ids."""
    store = asked.study.store(asked.results, asked.scale)
    return store.load_samples().to_pandas().set_index("id")


def at_precisions(asked: Asked) -> list[tuple[pd.DataFrame, pd.DataFrame, list[str]]]:
    """The rows at each other precision, those at the first, and their settings in words.

    They are of all settings that have several precisions, the study's own first; the words say in
    which settings they differ from the study's own.
    """
    own, found = own_settings(asked.study, asked.scale), []
    rows = asked.study.load(asked.results, asked.scale)[0].to_pandas()
    for settings, alike in rows.groupby(SETTINGS, dropna=False):
        base, *rounded = _by_precision(alike)
        apart = _words(_apart(settings, own))
        found += [(each, base, apart) for each in rounded]
    return sorted(found, key=lambda each: each[2])


def elsewhere(asked: Asked, frame: pd.DataFrame) -> list[tuple[dict[str, Any], pd.DataFrame]]:
    """The rows at each other setting than the frame's, at its precision, and how they differ.

    Rows of other images are not among them, see `datasets`.
    """
    rows = asked.study.load(asked.results, asked.scale)[0].to_pandas()
    for name in ("precision", "data"):
        rows = rows[rows[name] == frame[name].iloc[0]]
    found = []
    for settings, alike in rows.groupby(SETTINGS, dropna=False):
        if apart := _apart(settings, first(frame)):
            found.append((apart, alike.sort_values(["method", "lam", "seed"])))
    return found


def datasets(asked: Asked, frame: pd.DataFrame) -> list[tuple[str, list[str], pd.DataFrame]]:
    """The rows of each data set: its name, how settings differ from the frame's, rows alike.

    The frame's own data set is the first. There are none if all rows are of one data set. Of a
    grid of one's own they are those of each configuration, with the settings that vary in it.
    """
    rows = asked.study.load(asked.results, asked.scale)[0].to_pandas()
    names = [name for name in SETTINGS if rows[name].nunique(dropna=False) > 1]
    if not names or (rows["data"].nunique() < 2 and not asked.study.base):
        return []
    base, found = first(frame), []
    for settings, alike in rows.groupby([*SETTINGS, "precision"], dropna=False):
        *values, precision = settings
        apart = {name: value for name, value in _apart(values, base).items() if name != "data"}
        if asked.study.base:
            apart = {name: alike[name].iloc[0] for name in names if name != "data"}
        words = _words(apart)
        words += [str(precision)] if precision != base["precision"] else []
        found.append((name_of(first(alike)), words, alike.sort_values(["method", "lam", "seed"])))
    mine = name_of(base)
    return sorted(found, key=lambda each: (each[0] != mine, each[0], each[1]))


def _apart(settings: Iterable[Any], others: Mapping[str, Any]) -> dict[str, Any]:
    """Which of these values of SETTINGS differ from the others."""
    pairs = zip(SETTINGS, settings, strict=True)
    return {name: value for name, value in pairs if value != others[name]}


def _words(apart: Mapping[str, Any]) -> list[str]:
    return [f"{name} {value}" for name, value in apart.items()]


def _alike(frame: pd.DataFrame, settings: Mapping[Any, Any]) -> pd.DataFrame:
    same = [frame[name] == settings[name] for name in SETTINGS]
    return frame[pd.concat(same, axis=1).all(axis=1)]


def _by_precision(alike: pd.DataFrame) -> list[pd.DataFrame]:
    """The rows at each precision; all together where this version knows none of theirs."""
    order = alike.assign(rank=alike["method"].map(rank))
    order = order.sort_values(["rank", "method", "lam", "seed"]).drop(columns="rank")
    found = [order[order["precision"] == name] for name in ImageSpec.PRECISIONS]
    return [rows.reset_index(drop=True) for rows in found if len(rows)] or [alike]


def judged(frame: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Runs with the inception score that claims read, and whose it is.

    It is that of ImageNet's classifier where every run that did not diverge has it. Else it is
    that of the suite's own, without runs on images that the suite's own does not know.
    """
    good = frame["inception_score_imagenet"][~gone(frame)]
    if not len(good) or good.isna().any():
        return frame[frame["classifier"].notna()], OURS
    return frame.assign(inception_score=frame["inception_score_imagenet"]), "ImageNet"


def own_settings(study: Study, scale: str) -> dict[str, Any]:
    """The value of every field at this scale that the study itself gives."""
    fields = (field for axis in study.axes[scale] for field in axis.split(","))
    given = {field: study.first_of(scale, field) for field in fields}
    spec = ImageSpec(study=study.name, scale=scale, method="", lam=0.0, **given)
    return {name: getattr(spec, name) for name in columns(ImageSpec)}


def apart(asked: Asked, frame: pd.DataFrame) -> list[str]:
    """Returns in which settings the frame differs from the study's own, in words."""
    return _words(_apart(frame[SETTINGS].iloc[0], own_settings(asked.study, asked.scale)))


def foreign(frame: pd.DataFrame, study: Study) -> bool:
    """Returns whether the images are neither the study's own nor those drawn in their place."""
    return first(frame)["data"] not in {study.first_of(scale, "data") for scale in study.axes}


def unpublished(frame: pd.DataFrame, study: Study) -> bool:
    """Returns whether the paper has nothing of the kind: other images, or a grid of one's own."""
    return bool(study.base) or foreign(frame, study)


def name_of(one: Mapping[str, Any]) -> str:
    """Returns the name of a run's images; a user's own have that of their folder or file."""
    place = one.get("data_place")
    return f"{place} ({one['data']})" if isinstance(place, str) else str(one["data"])


def own(frame: pd.DataFrame, study: Study, scale: str) -> dict[str, tuple[str, float]]:
    """Returns method and lambda of the study's own trainings, by id, at the frame's precision.

    Of other images they are the same trainings on these images.
    """
    one, precision = first(frame), frame["precision"].iloc[0]
    known: dict[str, Any] = {}
    if precision in ImageSpec.PRECISIONS:
        known["precision"] = precision
    if foreign(frame, study):
        fitted = {"data", "batch", "ais_images"}  # what the images decide
        fitted -= {name for axis in study.given.get("axes", {}) for name in axis.split(",")}
        known["given"] = {name: [one[name]] for name in sorted(fitted)}
    return {spec.id: (spec.method, spec.lam) for spec in study.specs(scale, **known)}


def missing(frame: pd.DataFrame, study: Study, scale: str) -> int:
    """Returns how many of the study's own trainings are not stored, at whatever settings."""
    elsewhere = frame.attrs.get("elsewhere", ())
    return len(own(frame, study, scale).keys() - {*frame["id"], *elsewhere})


def headline(frame: pd.DataFrame, study: Study, scale: str) -> pd.DataFrame:
    """The frame without the runs of a sweep.

    Those are of methods at other lambdas than the study's own, where it has its own as well.
    """
    pairs = zip(frame["method"], frame["lam"], strict=True)
    lams = ((lam, study.own_lams.get(method, study.lams[scale])) for method, lam in pairs)
    own = np.array([lam in known for lam, known in lams], bool)
    return frame[own | ~frame["method"].isin(frame["method"][own])]


def cells(frame: pd.DataFrame) -> dict[tuple[str, float], pd.DataFrame]:
    """The runs of each method and lambda, by both, in the order of the frame."""
    groups = (rows for _, rows in frame.groupby(["method", "lam"], sort=False))
    return {(str(rows["method"].iloc[0]), float(rows["lam"].iloc[0])): rows for rows in groups}


def swept(frame: pd.DataFrame) -> pd.DataFrame:
    """The runs that figures over lambda show: those of SWEPT and of all methods of several lambdas.

    A method of OWN_UNITS has no place beside them.
    """
    several = frame.groupby("method")["lam"].transform("nunique") > 1
    return frame[(several | frame["method"].isin(SWEPT)) & ~frame["method"].isin(OWN_UNITS)]


def names(frame: pd.DataFrame) -> dict[str, str]:
    """The paper's name of each method, by method: that at its largest lambda."""
    return dict(zip(*frame.sort_values("lam")[["method", "label"]].to_numpy().T, strict=True))


def first(frame: pd.DataFrame) -> dict[str, Any]:
    """The first run, whose settings are those of all."""
    return {str(name): value for name, value in frame.iloc[0].items()}


def gone(runs: Any) -> Any:
    """Which of the runs diverged, or whether the one run did: no mean contains their scores."""
    return runs["status"] == "diverged"


def diverged(frame: pd.DataFrame) -> int:
    """How many of the runs diverged."""
    return int(gone(frame).sum())


def paper(study: str, name: str) -> pd.DataFrame:
    """A table of the paper's, or of the papers around it, from the folder of a study."""
    with resources.files(f"bench.studies.{study}").joinpath(f"paper/{name}").open() as file:
        return pd.read_csv(file)
