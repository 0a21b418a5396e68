"""The reported numbers: today's code against the committed reference, and reports against rows."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import against, frames, report, run


def test_committed_reports_and_readme_are_what_the_rows_say(
    capsys: pytest.CaptureFixture[str],
) -> None:
    status = report.main(["--check"])
    assert status == 0, capsys.readouterr().out


def test_the_readme_shows_the_reference() -> None:
    blocks = [match[2] for match in report.BLOCK.finditer(report.README.read_text("utf-8"))]
    assert "toy_grid/quick/summary.md" in blocks
    assert ("toy_grid", "quick") in report.published()
    assert frames.runs(report.REFERENCE, "toy_grid", "quick")["seed"].nunique() == 5


def test_the_smoke_study_agrees_with_the_reference_within_its_seeds(tmp_path: Path) -> None:
    """Tolerance: the spread over the reference's seeds (another processor rounds otherwise)."""
    arguments = ["toy_grid", "--scale", "smoke", "--seeds", "2", "--results", str(tmp_path)]
    assert run.main([*arguments, "--workers", "1"]) == 0
    ours = frames.runs(tmp_path, "toy_grid", "smoke")
    reference = frames.runs(report.REFERENCE, "toy_grid", "smoke")
    assert reference["seed"].nunique() == 10
    table = against.table(ours, reference, report.REFERENCE)
    assert len(table.rows) == 16
    assert against.agrees(table), table.markdown()
