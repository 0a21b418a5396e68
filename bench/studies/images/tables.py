"""The tables of the MNIST study: functions from a frame of runs."""

from __future__ import annotations

import math

import pandas as pd

from bench.render.tables import Column, Table, lam, number
from bench.studies.images import frames

CONVERGED = 3.0
"""A log p(x) whose BDMC gap is larger, in nats, is printed as not converged."""
SWEPT = ("svae_r", "alice", "alice_sigmoid")

COLUMNS = [
    Column("method", text=True),
    Column("λ"),
    Column("paper log p(x) ≥", paper=True),
    Column("log p(x) ≥, nats"),
    Column("s.e. over images"),
    Column("BDMC gap"),
    Column("paper IS", paper=True),
    Column("IS (referee)"),
    Column("Fréchet (referee)"),
    Column("MSE of x"),
    Column("n"),
    Column("diverged"),
]

FOOTNOTES = (
    "The paper's values (grey) stand beside and no difference is formed with them: its code size, "
    "binarization and AIS settings are unpublished, its classifier is another. Its IS for GAN and "
    "WGAN-GP come from Hu et al. 2017 and a third classifier, and the 8.45 belongs to another "
    "model: there it is the score of an importance-weighted GAN. Its -79.26 and -79.47 are "
    "implausible for decoders of one latent layer: models with hierarchies of latents and far "
    "stronger inference are published near -79.5. It leaves out ALICE, whose authors report 9.279, "
    "apparently under its own classifier. PixelRNN is cited there and here, not run. AVB's -79.5 "
    "is, as far as known, an estimate with adaptive contrast (our AVB-AC) and not a bound."
)


def spread(values: pd.Series, digits: int = 2) -> str:
    """mean ± sd over seeds; the mean alone of one."""
    values = values.dropna().astype(float)
    if not len(values):
        return "–"
    mean = number(float(values.mean()), digits)
    return mean if len(values) < 2 else f"{mean} ± {number(float(values.std()), digits)}"


def table1(frame: pd.DataFrame) -> Table:
    """Table 1: the paper's rows in its order, then every other method that was trained."""
    paper = frames.paper_table1()
    groups = by_cell(frame)
    rows = []
    for cited in paper.to_dict("records"):
        runs = groups.pop((cited["method"], cited["lam"]), None)
        rows.append(_row(str(cited["label"]), cited, runs))
    for runs in groups.values():
        rows.append(_row(str(runs["label"].iloc[0]), {}, runs))
    return Table(
        "table1",
        "Table 1",
        f"{_protocol(frame)} {FOOTNOTES}{_nats(frame)}",
        COLUMNS,
        rows,
    )


def by_cell(frame: pd.DataFrame) -> dict[tuple[str, float], pd.DataFrame]:
    """The runs of each method and lambda, by both."""
    return {
        (str(runs["method"].iloc[0]), float(runs["lam"].iloc[0])): runs
        for runs in frames.cells(frame)
    }


def _row(label: str, cited: dict, runs: pd.DataFrame | None) -> list[str]:
    paper = [
        "" if cited.get(name) is None or math.isnan(cited[name]) else f"{cited[name]:g}"
        for name in ("log_likelihood", "inception_score")
    ]
    if runs is None:
        value = cited.get("lam", math.nan)
        note = "cited only" if cited.get("note") == "cited only" else "not run"
        blank = "" if math.isnan(value) else lam(value)
        return [label, blank, paper[0], note, "", "", paper[1], "", "", "", "0", "0"]
    gap = float(runs["bdmc_gap"].mean())
    likelihood = spread(runs["log_likelihood"])
    if not gap <= CONVERGED and likelihood != "–":
        likelihood = f"not converged ({likelihood})"
    return [
        label,
        lam(float(runs["lam"].iloc[0])),
        paper[0],
        likelihood,
        number(float(runs["log_likelihood_se"].mean()), 2),
        number(gap, 2),
        paper[1],
        spread(runs["inception_score"]),
        spread(runs["frechet"]),
        spread(runs["mse_x"], 3),
        str(len(runs)),
        str(int((runs["status"] == "diverged").sum())),
    ]


def _protocol(frame: pd.DataFrame) -> str:
    """How the numbers of this frame were made, from its own columns."""
    one = frame.iloc[0]
    stand_in = "STAND-IN IMAGES, drawn and not MNIST: nothing here is about the paper. "
    bits = {"static": "statically binarized test images", "dynamic": "binarized test images"}
    return (
        f"{stand_in if frame['stand_in'].any() else ''}"
        f"log p(x): lower bound by annealed importance sampling, mean over {one['ais_images']} "
        f"{bits[one['bits']]}, the same for all methods, {one['temperatures']} temperatures, "
        f"{one['chains']} chains, {one['leapfrog']} leapfrog steps; ± sd over seeds. BDMC gap: "
        f"upper minus lower bound on {_simulated(frame)} images "
        f"simulated from the model; over {CONVERGED:g} nats the bound is printed as not "
        f"converged. IS: inception score of {one['samples']:,} samples in {one['n_splits']} "
        f"splits by the suite's own {referee(frame)}; Fréchet distance to them in "
        f"its features. MSE of reconstructed test images on [-1, 1]. Networks at "
        f"{one['width']:g} of the paper's width, {one['epochs']} epochs, Adam at {one['lr']:g}."
    )


def _nats(frame: pd.DataFrame) -> str:
    """What lambda means to `svae_r_density`, if it is there."""
    if "svae_r_density" not in set(frame["method"]):
        return ""
    return (
        " The density methods' critic tells real images, which have no noise, from samples with "
        "noise of 0.05, as (29) has it. Their λ weighs nats; for each element of x, as the "
        "authors' code weighs its errors, that is 784 λ / (2 · 0.05²) = 156,800 λ times the mean "
        "squared error on [0, 1]."
    )


def referee(frame: pd.DataFrame) -> str:
    """Which classifier scored, how good it is and what it gives real images."""
    one = frame.iloc[0]
    return (
        f"{one['classifier']}, accuracy {100 * one['classifier_accuracy']:.2f} %, weights "
        f"{one['classifier_sha256'][:12]}, which gives the real test images {one['real_score']:.2f}"
    )


def _simulated(frame: pd.DataFrame) -> int:
    known = frame["simulated"].dropna()
    return int(known.max()) if len(known) else 0


def swept_columns() -> list[Column]:
    """Of a table over lambda: score, error and number of runs of each method."""
    return [Column(f"{method} {name}") for method in SWEPT for name in ("IS", "MSE", "n")]


def swept_cells(frame: pd.DataFrame, value: float) -> list[str]:
    """What stands below `swept_columns` at one lambda."""
    cells = []
    for method in SWEPT:
        runs = frame[(frame["method"] == method) & (frame["lam"] == value)]
        cells += [spread(runs["inception_score"]), spread(runs["mse_x"], 3), counted(runs)]
    return cells


def counted(runs: pd.DataFrame) -> str:
    """How many, and how many of them diverged, whose scores no mean contains."""
    diverged = int((runs["status"] == "diverged").sum())
    return f"{len(runs)}, {diverged} diverged" if diverged else str(len(runs))


def sweep(frame: pd.DataFrame) -> Table:
    """Inception score and MSE over lambda beside ALICE's published sweep."""
    published = frames.alice_sweep().set_index("lam")
    columns = [Column("λ")]
    columns += [Column("ALICE's own IS", paper=True), Column("ALICE's own MSE", paper=True)]
    columns += swept_columns()
    here = frame[frame["method"].isin(SWEPT)]
    rows = []
    for value in sorted({*published.index, *here["lam"]}):
        row = [lam(value), "", ""]
        if value in published.index:
            known = published.loc[value]
            row[1] = f"{known['inception_score']:.2f} ± {known['inception_sd']:.2f}"
            row[2] = f"{known['mse']:.3f} ± {known['mse_sd']:.3f}"
        rows.append(row + swept_cells(here, value))
    return Table(
        "sweep",
        "Over λ",
        f"± sd over seeds; {referee(frame)}. Grey: ALICE's authors' sweep with "
        "their classifier, which gives real test images 9.88; their λ weighs other units and "
        "their networks have the full width. "
        "Own values of λ: --only method=svae_r,alice,alice_sigmoid --lam 0,1e-5,…",
        columns,
        rows,
    )
