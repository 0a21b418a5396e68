"""What others have published about the toy study: the paper's Figure 3, and ALICE's own runs."""

from __future__ import annotations

from importlib import resources

import numpy as np
import pandas as pd

from bench.studies.toy_grid.runs import CLOSE, COLLAPSED, TENTH, TOP


def paper_bars() -> pd.DataFrame:
    """Figure 3 of the paper, digitised: metric, label, lam, bin_lo, bin_hi, percent of 576."""
    path = resources.files("bench.studies.toy_grid") / "paper" / "fig3_digitised.csv"
    with path.open() as file:
        bars = pd.read_csv(file)
    parts = bars["series"].str.partition("-")  # "sVAE-0.1"
    bars["lam"] = parts[2].replace("", "0").astype(float)
    bars["label"] = parts[0].where((parts[0] != "sVAE") | (bars["lam"] == 0), "sVAE-r")
    return bars[["metric", "label", "lam", "bin_lo", "bin_hi", "percent"]]


def paper_cells() -> dict[tuple[str, float], dict[str, float]]:
    """Returns what Figure 3 says by label and lambda.

    They are the mean score by bin centres, three shares, and a quantile, interpolated in its bin.
    """
    found = {}
    for key, cell in paper_bars().groupby(["label", "lam"]):
        scores, errors = (cell[cell["metric"] == metric] for metric in ("IS", "MSE"))
        centres = (scores["bin_lo"] + scores["bin_hi"]) / 2
        top, close = scores["bin_lo"] >= TOP - 1e-9, errors["bin_hi"] <= CLOSE
        low, below = scores["bin_hi"] <= COLLAPSED, scores["percent"].cumsum()
        edges = [scores["bin_lo"].iloc[0], *scores["bin_hi"]]
        found[key] = {
            "IS mean": (centres * scores["percent"]).sum() / scores["percent"].sum(),
            f"IS > {TOP}": scores.loc[top, "percent"].sum() / 100,
            f"IS < {COLLAPSED}": scores.loc[low, "percent"].sum() / 100,
            "tenth percentile": float(np.interp(TENTH * below.iloc[-1], [0, *below], edges)),
            f"MSE < {CLOSE}": errors.loc[close, "percent"].sum() / 100,
        }
    return found


def alice_cells() -> dict[tuple[str, float], dict[str, float]]:
    """Returns what ALICE's own toy runs say by label and lambda, 576 runs each."""
    path = resources.files("bench.studies.toy_grid") / "paper" / "alice_toy.csv"
    with path.open() as file:
        table = pd.read_csv(file)
    return {
        ("ALICE" if row["lam"] else "ALI", row["lam"]): {
            "IS mean": row["is_mean"],
            f"IS > {TOP}": row["percent_is_above_4.6"] / 100,
            "MSE median": row["mse_median"],
        }
        for row in table.to_dict("records")
    }
