"""What is said of scaling follows from recorded times; engines leave nothing behind."""

from __future__ import annotations

import sys
from pathlib import Path

import pyarrow as pa
import pytest

from bench import report
from bench.spec import columns
from bench.speed import simulate
from bench.store.rows import StoreError, to_bytes
from bench.studies import STUDIES
from bench.studies.images.spec import ImageSpec
from bench.studies.toy_grid.job import seconds
from tests import overload
from tests.engine.test_executors import needs
from tests.rows import TOY_ROWS, row


def test_jobs_are_dealt_to_whoever_is_free() -> None:
    assert simulate.deal([3, 3, 2, 2, 2], 1) == 12
    assert simulate.deal([3, 3, 2, 2, 2], 2) == 7
    assert simulate.deal([3, 3, 2, 2, 2], 9) == 3


@pytest.fixture(scope="module")
def simulation() -> simulate.Simulation:
    times = simulate.recorded("toy_grid", report.REFERENCE)
    return simulate.Simulation(STUDIES["toy_grid"].specs("paper"), times)


def test_estimates_are_scaled_to_what_trainings_really_took(
    simulation: simulate.Simulation,
) -> None:
    rows = STUDIES["toy_grid"].load(report.REFERENCE, "paper")[0].to_pylist()
    rows = [row for row in rows if row["cpu_seconds"] and row["lam"] in (0, 0.01, 0.1)]
    own = {row["id"] for row in rows}
    seeds = 1 + max(row["seed"] for row in rows)
    specs = [s for s in STUDIES["toy_grid"].specs("paper", seeds=seeds) if s.id in own]
    assert len(specs) == len(rows) > 0
    estimate = sum(seconds(spec, simulation.times.rate) for spec in specs)
    assert estimate == pytest.approx(sum(row["cpu_seconds"] for row in rows))


def test_times_come_from_the_largest_scale_that_has_enough(tmp_path: Path) -> None:
    """A few stacks of the paper's size say little; the clock counts where nothing else is known."""
    study = STUDIES["toy_grid"]

    def publish(scale: str, n: int, **times: float | None) -> None:
        rows = [
            row(spec, **{name: value and value + i for name, value in times.items()})
            for i, spec in enumerate(study.specs(scale)[:n])
        ]
        (tmp_path / "toy_grid").mkdir(exist_ok=True)
        content = to_bytes(pa.Table.from_pylist(rows, schema=TOY_ROWS))
        (tmp_path / "toy_grid" / f"{scale}.parquet").write_bytes(content)

    with pytest.raises(StoreError, match="no times of toy_grid are published"):
        simulate.recorded("toy_grid", tmp_path)
    publish("quick", 30, train_seconds=900.0, cpu_seconds=100.0)
    assert len(simulate.recorded("toy_grid", tmp_path).scatter) == 30
    quick = simulate.recorded("toy_grid", tmp_path).rate
    publish("quick", 30, train_seconds=100.0, cpu_seconds=None)
    assert simulate.recorded("toy_grid", tmp_path).rate == quick
    publish("paper", 19, train_seconds=100.0, cpu_seconds=100.0)
    assert simulate.recorded("toy_grid", tmp_path).rate == quick
    publish("paper", 20, train_seconds=100.0, cpu_seconds=100.0)
    assert simulate.recorded("toy_grid", tmp_path).rate > quick


def test_work_is_the_same_however_it_is_cut(simulation: simulate.Simulation) -> None:
    whole = sum(simulation.jobs(scatter=False))
    assert whole == pytest.approx(sum(simulation.each.values()))
    assert len(simulation.jobs(size=1)) == 3456
    ratios = [a / b for a, b in zip(simulation.jobs(), simulation.jobs(scatter=False), strict=True)]
    assert min(ratios) > 0.5 and ratios[:9] != sorted(ratios[:9], reverse=True)  # nobody foresees
    alone = sum(simulation.jobs(size=1, scatter=False))
    assert alone == pytest.approx(whole * STUDIES["toy_grid"].cost_of_size[1])
    assert simulation.shards(1) == pytest.approx(sum(simulation.jobs()), rel=0.05)


def test_the_committed_table_is_what_the_reference_says(simulation: simulate.Simulation) -> None:
    committed = (report.REFERENCE_REPORTS / "scaling.md").read_text("utf-8")
    for workers in (1, 128, 256):
        assert "| " + " | ".join(simulation.line(workers)) + " |" in committed


def test_images_scale_by_whole_trainings() -> None:
    times = simulate.recorded("cifar10", report.REFERENCE)
    whole = simulate.Simulation(STUDIES["cifar10"].specs("paper"), times)
    text = simulate.markdown("cifar10", "paper", whole)
    assert text == (report.REFERENCE_REPORTS / "scaling_cifar10.md").read_text("utf-8")
    assert whole.shards(33) == max(whole.jobs())  # a training each, as long as anywhere
    assert text.count("\n| 33 |") == 1 and "the largest stack" in text
    rows = STUDIES["cifar10"].load(report.REFERENCE, "quick")[0].to_pylist()
    own = {spec.id for spec in STUDIES["cifar10"].specs("quick", seeds=3)}
    rows = [row for row in rows if row["id"] in own]
    real = sum(row["train_seconds"] + row["evaluation_seconds"] for row in rows)
    specs = [ImageSpec(**{name: row[name] for name in columns(ImageSpec)}) for row in rows]
    estimate = sum(STUDIES["cifar10"].seconds(spec, times.rate) for spec in specs)
    assert estimate == pytest.approx(real, rel=1e-6)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("name", ["loky", pytest.param("dask", marks=needs("dask"))])
def test_ctrl_c_leaves_nothing_behind(name: str) -> None:
    *_, left = overload.run(name, 400, interrupt=True)
    assert left == []
