"""The tables of the toy study: functions from a frame of runs."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from bench.render import intervals as stats
from bench.render.tables import Column, Table, lam, number, percent
from bench.studies.toy_grid import frames
from bench.studies.toy_grid.frames import CLOSE, GOOD, TOP


def cells(frame: pd.DataFrame) -> list[tuple[str, float, pd.DataFrame]]:
    """(label, lambda, runs), by lambda and within it in the order of the paper's legend."""
    legend = ["ALI", "ALICE", "sVAE", "sVAE-r"]
    groups = [
        (label, value, frame[(frame["label"] == label) & (frame["lam"] == value)])
        for label, value in sorted(set(zip(frame["label"], frame["lam"], strict=True)))
    ]
    rank = {name: i for i, name in enumerate(legend)}
    return sorted(groups, key=lambda g: (g[1], rank.get(g[0], len(legend)), g[0]))


def scores(frame: pd.DataFrame, expected: int) -> Table:
    """Per lambda and label: the score, the shares, what is missing, the paper beside."""
    paper = {(c["label"], c["lam"]): c for c in frames.paper_cells().to_dict("records")}
    rates = sorted(frame["lr"].unique())
    columns = [
        Column("λ"),
        Column("method", text=True),
        *([Column("learning rate")] if len(rates) > 1 else []),
        Column("IS mean"),
        Column("IS sd"),
        Column("IS median"),
        Column("paper IS mean", paper=True),
        Column(f"IS > {TOP}"),
        Column(f"paper IS > {TOP}", paper=True),
        Column(f"and quality ≥ {GOOD}"),
        Column(f"MSE < {CLOSE}"),
        Column(f"paper MSE < {CLOSE}", paper=True),
        Column("MSE median"),
        Column("n"),
        Column("diverged"),
        Column("missing"),
    ]
    rows = []
    for rate in rates:
        for label, value, runs in cells(frame[frame["lr"] == rate]):
            finite = runs.loc[runs["status"] == "ok", "inception_score"].astype(float)
            known = paper.get((label, value), {})

            def of_paper(column: str, form: Callable[[float], str], known=known) -> str:
                return form(known[column]) if known else ""

            rows.append(
                [
                    lam(value),
                    label,
                    *([f"{rate:g}"] if len(rates) > 1 else []),
                    number(finite.mean()),
                    number(finite.std()),
                    number(runs["score"].median()),
                    of_paper("paper_mean", lambda v: number(v, 2)),
                    percent(runs["top"].mean()),
                    of_paper("paper_top", percent),
                    percent(runs["top_good"].mean()),
                    percent(runs["close"].mean()),
                    of_paper("paper_close", percent),
                    number(runs["mse"].median()),
                    str(len(runs)),
                    str((runs["status"] == "diverged").sum()),
                    str(max(0, expected - len(runs))),
                ]
            )
    noise = ", ".join(f"{name} {score}" for name, score in frames.NOISE_SCORES.items())
    return Table(
        "scores",
        "Scores",
        "Inception score by the exact posterior, 1,024 samples, one split (real data 4.990). "
        "Diverged runs count as IS 1 and MSE ∞ in shares and medians; means and sd are over "
        "finite runs. Quality: share of samples within 3 sd of a centre (real data .989). "
        f"For comparison, the inception score of noise: {noise}. The paper's columns (grey) are "
        "read off its Figure 3: 576 runs, full-size networks, means by bin centres, the "
        "classifier unpublished; no difference is formed with them.",
        columns,
        rows,
    )


def pairs(frame: pd.DataFrame) -> Table:
    """sVAE-r against ALICE (sVAE against ALI at lambda 0) over equal configurations and seeds."""
    rows = []
    for value in sorted(frame["lam"].unique()):
        a, b = (
            frame[(frame["lam"] == value) & (frame["method"] == method)]
            for method in ("svae_r", "alice")
        )
        if not stats.paired(a, b, "score")[0].size:
            continue
        for column, what, larger in (
            ("score", "inception score", True),
            ("high_quality_counted", "high quality", True),
            ("mse", "MSE of x", False),
        ):
            x, y = stats.paired(a, b, column)
            better = stats.improvement(a, b, column, larger)
            rows.append(
                [
                    lam(value),
                    f"{what}: P(sVAE better)",
                    f"{better.value:.3f}",
                    f"{better.low:.3f} to {better.high:.3f}",
                    _p(stats.wilcoxon(x, y)),
                    "",
                    str(len(x)),
                ]
            )
        for column, what in (
            ("top", f"share IS > {TOP}"),
            ("top_good", f"share IS > {TOP}, quality ≥ {GOOD}"),
            ("close", f"share MSE < {CLOSE}"),
        ):
            x, y = stats.paired(a, b, column)
            gain = stats.difference(x, y)
            rows.append(
                [
                    lam(value),
                    f"{what}: difference",
                    f"{gain.value:+.3f}",
                    f"{gain.low:+.3f} to {gain.high:+.3f}",
                    _p(stats.wilcoxon(x, y)),
                    number(stats.detectable(x, y)),
                    str(len(x)),
                ]
            )
    return Table(
        "pairs",
        "sVAE-r against ALICE, paired",
        "sVAE-r against ALICE (at λ = 0: sVAE against ALI), paired on equal configuration, seed, "
        "initial weights, data and noise. Intervals: 95 %, bootstrapped over configurations. "
        "P counts ties half; differences are sVAE-r minus ALICE. p: Wilcoxon's signed-rank test, "
        "two-sided. Detectable: the smallest difference found in four cases of five at this n.",
        [
            Column("λ"),
            Column("comparison", text=True),
            Column("value"),
            Column("95 % interval"),
            Column("p"),
            Column("detectable"),
            Column("configurations"),
        ],
        rows,
    )


def _p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def gradients(frame: pd.DataFrame) -> Table:
    """Gradient that reaches the decoder at the end of training, by reduction of the logit."""
    labels = {"svae_r": "(14) mean of f", "alice": "(19) non-saturating"}
    labels |= {"alice_minimax": "(18) minimax", "alice_sigmoid": "mean of σ(f)"}
    rows = []
    for label, value, runs in cells(frame):
        last = pd.DataFrame(
            [{k: v[-1] for k, v in each} for each in runs["decoder_gradient"]]
        ).astype(float)
        base = last["svae_r"]
        for method in last:
            ratio = (last[method] / base).dropna()
            rows.append(
                [
                    lam(value),
                    label,
                    labels.get(str(method), str(method)),
                    number(last[method].median(), 4),
                    number(ratio.median()),
                    number(float(ratio.quantile(0.1))),
                    percent((ratio < 0.1).mean()),
                ]
            )
    return Table(
        "gradients",
        "Gradient at the decoder",
        "Size of the gradient that each reduction of the logit sends to the decoder at the end of "
        "training: root mean square over 1,024 held-out decoder pairs of the norm of d loss / d x, "
        "all four asked of the same trained critic and decoder. Relative to (14) on the same run.",
        [
            Column("λ"),
            Column("trained as", text=True),
            Column("reduction", text=True),
            Column("median size"),
            Column("median ratio to (14)"),
            Column("10th percentile"),
            Column("runs below a tenth"),
        ],
        rows,
    )
