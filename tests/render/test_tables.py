"""Tables in every format, and columns of metrics that no table was written for."""

from __future__ import annotations

import numpy as np
import pandas as pd

from bench.render.tables import extra, markdown, tabulate
from bench.scores.metrics import Metric, Outputs


def halved(outputs: Outputs) -> float:
    """Half: a made-up number.

    This paragraph is for programmers.
    """
    return 0.5


def test_a_metric_without_a_column_gets_one_and_its_words() -> None:
    """Diverged trainings have no score; of others it is said how many have none."""
    values = [0.25, np.nan, 0.5, np.nan]
    frame = pd.DataFrame({"half": values, "own": 1.0, "empty": np.nan})
    frame["status"] = ["ok", "ok", "ok", "diverged"]
    metrics = [Metric((name, "half_sd"), halved, name.title(), 2) for name in ("half", "own")]
    metrics += [Metric((name,), halved, name.title()) for name in ("empty", "unknown")]
    columns, words = extra(metrics, frame, shown=("own",))
    table = tabulate("t", "T", f"Words.{words}", columns, [frame, frame.iloc[1:2]])
    text = table.markdown().replace("\N{NO-BREAK SPACE}", " ")
    assert text == "| Half |\n| ---: |\n| 0.38 (n = 2) |\n| – |\n\n" + (
        "Words. Half: a made-up number. 1 of 4 trainings have no Half.\n"
    )
    columns, _ = extra(
        metrics, frame, ("own",), lambda values, digits: f"{values.max():.{digits}f}"
    )
    assert columns[0][1](frame) == "0.50 (n = 2)"


def test_markdown_aligns_and_escapes() -> None:
    assert markdown(["a", "b"], [["x|y", "1"]], ["---", "---:"]) == (
        "| a | b |\n| --- | ---: |\n| x\\|y | 1 |"
    )
