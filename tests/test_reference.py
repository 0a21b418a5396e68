"""Reports against committed rows, and the smoke study of today's code against the reference.

tests/test_numbers.py retrains rows of the longer studies.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import report
from bench.render.compare import agrees
from bench.render.tables import Table
from bench.studies import STUDIES
from bench.studies.toy_grid import runs, train
from bench.studies.toy_grid.report import comparison
from bench.studies.toy_grid.train import Trainer
from tests import numbers


def test_committed_reports_and_readme_are_what_the_rows_say(
    capsys: pytest.CaptureFixture[str],
) -> None:
    status = report.main(["--check"])
    assert status == 0, capsys.readouterr().out


def test_the_readme_shows_the_reference() -> None:
    readme = (report.ROOT / "README.md").read_text("utf-8")
    assert [match[2] for match in report.BLOCK.finditer(readme)] == ["claims.md"]
    assert ("toy_grid", "quick") in report.stored(report.REFERENCE)
    assert runs.runs(STUDIES["toy_grid"], report.REFERENCE, "quick")["seed"].nunique() == 5


def smoke_against_reference(folder: Path) -> Table:
    """Five seeds of the smoke study by today's code, beside the reference's ten."""
    specs = STUDIES["toy_grid"].specs("smoke", seeds=5)
    numbers.retrain(specs, folder)
    ours = runs.runs(STUDIES["toy_grid"], folder, "smoke")
    reference = runs.runs(STUDIES["toy_grid"], report.REFERENCE, "smoke")
    assert reference["seed"].nunique() == 10
    return comparison(ours, reference, report.REFERENCE)


def test_the_smoke_study_agrees_with_the_reference_within_its_seeds(tmp_path: Path) -> None:
    """Tolerance: the spread over the reference's seeds (another processor rounds otherwise)."""
    table = smoke_against_reference(tmp_path)
    assert len(table.rows) == 24
    assert agrees(table), table.markdown()


@pytest.mark.parametrize("mistake", ["momentum", "reconstruction", "critic"])
def test_the_smoke_study_notices_a_mistake(
    mistake: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if mistake == "momentum":
        monkeypatch.setattr(train, "BETAS", (0.95, 0.999))
    elif mistake == "reconstruction":
        half = lambda loss, lam, error: loss + lam * error / 3  # noqa: E731
        monkeypatch.setattr(train, "regularised", half)
    else:
        monkeypatch.setattr(Trainer, "critic_steps", lambda self, *_: None)
    assert not agrees(smoke_against_reference(tmp_path))
