"""Every column says what it means, in the file that has it."""

from __future__ import annotations

import json
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bench.scores import metrics
from bench.scores.metrics import Metric
from bench.show.__main__ import main
from bench.spec import columns
from bench.store import schema
from bench.store.provenance import ROOT
from bench.store.rows import Store, from_bytes, to_bytes
from bench.studies import STUDIES
from bench.studies.study import UNEXPLAINED
from tests.rows import TOY, TOY_ROWS, TOY_SAMPLES, points, row, smoke

SPECS = smoke()


@pytest.mark.parametrize("study", STUDIES)
def test_every_column_of_the_suite_is_explained(study: str, tmp_path: Path) -> None:
    kept = STUDIES[study].store(tmp_path, "smoke")
    for field in (*kept.rows.columns, *kept.samples.columns):
        line = schema.about(field)
        assert line and line != UNEXPLAINED.format(study), field.name
        assert "\n" not in line


def test_no_line_is_about_a_column_that_is_none() -> None:
    told = tomllib.loads((ROOT / "bench/store/columns.toml").read_text("utf-8"))
    parts = {"toy_grid": "toy_grid", "mnist": "images", "theory": "theory"}
    every = {*schema.IDENTITY, *schema.PROVENANCE}
    for study, part in parts.items():
        chosen = STUDIES[study]
        own = {*chosen.columns(), *metrics.columns(chosen.metrics())}
        fields = {*columns(chosen.kind)}
        assert {*told.pop(part)} == own | fields - {*told["every"]}
        assert {*told.pop(f"{part}_samples")} == {*chosen.sample_columns()}
        every |= fields & {*told["every"]}
    assert {*told.pop("every")} == every
    assert not told


def test_scores_say_which_values_are_better() -> None:
    def better(study: str) -> dict[str, str]:
        found = STUDIES[study].explanations()
        return {name: way for name, line in found.items() if (way := schema.better(line))}

    assert better("toy_grid") == {
        **dict.fromkeys(("inception_score", "modes", "high_quality", "mode_coverage"), "higher"),
        **dict.fromkeys(("mse_x", "mse_z"), "lower"),
    }
    images = better("mnist")
    assert images["log_likelihood"] == images["inception_score"] == "higher"
    assert images["fid"] == images["kid"] == images["swd"] == images["frechet_2"] == "lower"
    assert better("theory")["kl_s"] == "lower"


def test_files_carry_the_lines(tmp_path: Path) -> None:
    TOY.store(tmp_path, "smoke").write([row(each) for each in SPECS], [points(SPECS[0])])
    (path, *_) = (tmp_path / "toy_grid" / "smoke").glob("*.parquet")
    for field in pq.read_schema(path):
        assert field.metadata[b"bench.about"].decode() == TOY.explanations()[field.name]
    (path,) = (tmp_path / "toy_grid" / "smoke_samples").glob("*.parquet")
    assert b"256 test points" in pq.read_schema(path).field("x").metadata[b"bench.about"]


def plug_in(function: Any) -> dict[str, str]:
    metric = Metric(("reach", "reach_sd"), function, "reach")
    return replace(TOY, stored_metrics=[metric]).explanations()


def test_a_metric_of_a_plug_in_is_explained_by_its_docstring_if_it_has_one() -> None:
    def reach(outputs: Any) -> tuple[float, float]:
        """Reach is the largest number; lower is better.

        Nothing more is shown.
        """
        return 0.0, 0.0

    found = plug_in(reach)
    assert found["reach"] == "Reach is the largest number; lower is better."
    assert schema.better(found["reach"]) == "lower"
    assert found["reach_sd"] == "see reach, which is of the same metric"
    assert plug_in(lambda outputs: (0.0, 0.0))["reach"] == UNEXPLAINED.format("toy_grid")


def published(folder: Path) -> Store:
    """Returns the store of published files without any lines on columns."""
    place = folder / "toy_grid"
    place.mkdir(parents=True)
    rows = pa.Table.from_pylist([row(each) for each in SPECS], schema=TOY_ROWS)
    (place / "smoke.parquet").write_bytes(to_bytes(rows))
    samples = pa.Table.from_pylist([points(SPECS[0])], schema=TOY_SAMPLES)
    (place / "smoke_samples.parquet").write_bytes(to_bytes(samples))
    return TOY.store(folder, "smoke")


def test_published_files_get_the_lines_and_no_value_changes(tmp_path: Path) -> None:
    kept = published(tmp_path)
    both = [kept.published(""), kept.published("_samples")]
    before, bytes_before = [*map(pq.read_table, both)], [path.read_bytes() for path in both]
    assert kept.explain(write=False) == both
    assert [path.read_bytes() for path in both] == bytes_before
    assert kept.explain() == both
    assert [pq.read_table(path) for path in both] == before
    assert "learning rate" in schema.about(pq.read_schema(both[0]).field("lr"))
    assert kept.explain() == []
    assert TOY.store(tmp_path / "none", "smoke").explain() == []
    assert not (tmp_path / "toy_grid" / "tmp").exists()


def test_files_without_lines_are_not_written_again_for_them(tmp_path: Path) -> None:
    kept = TOY.store(tmp_path, "smoke")
    bare = pa.schema([field.remove_metadata() for field in kept.rows.columns])
    kept.rows.columns = bare
    kept.write([row(each) for each in SPECS], [points(SPECS[0])])
    files = {path: path.read_bytes() for path in kept.rows.files()}
    today = TOY.store(tmp_path, "smoke")
    today.prepare()
    assert files == {path: path.read_bytes() for path in kept.rows.files()}
    assert len(today.load()[0]) == len(SPECS)
    content = files[kept.rows.files()[0]]
    assert schema.about(from_bytes(content, today.rows.columns).schema.field("lr"))


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    assert main([*arguments]) == 0
    return " ".join(capsys.readouterr().out.split())


def test_columns_are_printed_by_what_a_file_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = TOY.store(tmp_path, "smoke")
    said = {**TOY.explanations(), "lr": "what an older version said"}
    kept.rows.columns = schema.rows(TOY.kind, TOY.columns(), about=said)
    kept.rows.write([{"id": SPECS[0].id}])
    out = shown(capsys, "toy_grid", "--columns", "--results", str(tmp_path))
    assert "lr number what an older version said" in out
    assert str(kept.rows.files()[0]) in out.replace(" ", "")  # a long path is folded
    assert "decoder_gradient list of numbers by name at each trace_epoch" in out


def test_columns_of_every_study_are_printed_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = shown(capsys, "--columns", "--results", str(tmp_path))
    assert out.count("learning rate of Adam") == 1
    assert out.count("lower bound on log p(x) by AIS") == 1
    assert "as declared; no file is stored" in out


def test_columns_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["theory", "--columns", "--json", "--results", str(tmp_path)])
    rows, samples = map(json.loads, capsys.readouterr().out.splitlines())
    assert rows["study"] == "theory" and rows["of"] == "rows" and samples["of"] == "samples"
    by_name = {each["column"]: each for each in rows["columns"]}
    assert by_name["kl_s"]["type"] == "number" and "nats" in by_name["kl_s"]["about"]
