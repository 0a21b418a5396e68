"""Claim 1 of the paper in parts, each as a rule that was fixed before the study was run."""

from __future__ import annotations

import pandas as pd

from bench.render import intervals as stats
from bench.render.claims import VERDICTS, Claim
from bench.render.tables import number
from bench.studies.toy_grid.frames import CLOSE, GOOD, TOP

LAM = 0.1
"""Claim 1 of the paper is about this lambda."""
BOTH = 0.9
"""Claim 1a: at least this share of runs reconstructs."""


def toy_claims(frame: pd.DataFrame) -> list[Claim]:
    """Claims 1a to 1d, from the frame of `frames.own`."""
    cells = {
        key: frame[(frame["method"] == method) & (frame["lam"] == lam)]
        for key, method, lam in (
            ("sVAE-r", "svae_r", LAM),
            ("ALICE", "alice", LAM),
            ("sVAE", "svae_r", 0.0),
            ("ALI", "alice", 0.0),
        )
    }
    return [
        _reconstructs(cells),
        _generates(cells, "1b", "top", f"IS > {TOP}"),
        _generates(cells, "1b'", "top_good", f"IS > {TOP} and high quality >= {GOOD}"),
        _helps(cells),
        _robust(cells),
    ]


def _reconstructs(cells: dict[str, pd.DataFrame]) -> Claim:
    pair = [cells["sVAE-r"], cells["ALICE"]]
    shares = [cell["close"].mean() for cell in pair]
    verdict = "no data"
    if all(len(cell) for cell in pair):
        verdict = "holds" if min(shares) >= BOTH else "fails"
    return Claim(
        "1a",
        f"At λ = {LAM} both methods reconstruct.",
        f"share of runs with MSE < {CLOSE} at least {BOTH:.0%} for each",
        verdict,
        f"sVAE-r {shares[0]:.1%} of {len(pair[0])}, ALICE {shares[1]:.1%} of {len(pair[1])}"
        if all(len(cell) for cell in pair)
        else "no runs",
    )


def _generates(cells: dict[str, pd.DataFrame], id: str, column: str, what: str) -> Claim:
    a, b = stats.paired(cells["sVAE-r"], cells["ALICE"], column)
    verdict, evidence = "no data", "no pairs"
    if len(a):
        gain = stats.difference(a, b)
        verdict = VERDICTS[gain.sign]
        evidence = (
            f"{a.mean():.1%} against {b.mean():.1%}: difference {gain} over {len(a)} "
            f"configurations; smallest difference findable {number(stats.detectable(a, b))}"
        )
    return Claim(
        id,
        f"At λ = {LAM} sVAE-r generates better than ALICE.",
        f"95 % interval of the paired difference in the share with {what} excludes 0",
        verdict,
        evidence,
    )


def _helps(cells: dict[str, pd.DataFrame]) -> Claim:
    signs, parts = [], []
    for with_, without in (("sVAE-r", "sVAE"), ("ALICE", "ALI")):
        for column, what in (("top", "IS"), ("top_good", "IS and quality")):
            a, b = stats.paired(cells[with_], cells[without], column)
            if len(a):
                gain = stats.difference(a, b)
                signs.append(gain.sign)
                parts.append(f"{with_} over {without}, {what}: {gain}")
    verdict = "no data"
    if len(signs) == 4:
        verdict = VERDICTS[min(signs)]
    return Claim(
        "1c",
        "More reconstruction helps both methods.",
        f"from λ = 0 to {LAM} the share with IS > {TOP} rises, and so does the share with "
        f"high quality >= {GOOD} as well, for each method: all four intervals above 0 (holds), "
        "any below 0 (fails)",
        verdict,
        "; ".join(parts) or "no pairs",
    )


def _robust(cells: dict[str, pd.DataFrame]) -> Claim:
    a, b = stats.paired(cells["sVAE-r"], cells["ALICE"], "score")
    verdict, evidence = "no data", "no pairs"
    if len(a) > 1:
        gap = stats.spread(a, b)
        verdict = VERDICTS[-gap.sign]
        evidence = (
            f"sd of the inception score over configurations {a.std(ddof=1):.3f} against "
            f"{b.std(ddof=1):.3f}: difference {gap}"
        )
    return Claim(
        "1d",
        "sVAE-r is more robust to the configuration than ALICE.",
        f"at λ = {LAM} the sd of its inception scores over configurations is smaller: 95 % "
        "interval of the difference below 0 (above 0: fails)",
        verdict,
        evidence,
    )
