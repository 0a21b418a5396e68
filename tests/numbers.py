"""Retrains rows that the reported numbers rest on, and measures how far they are from stored rows.

    python -m tests.numbers row       stores MNIST's row again; the checkout has to be clean
    python -m tests.numbers spread    adds this processor's columns to spread.csv, in half an hour

The toy rows are those of results/reference. MNIST's row is of the digits in fixtures/numbers, since
no test has the whole of MNIST.
"""

from __future__ import annotations

import csv
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pytest
import torch

from bench import report, run
from bench.data.sources import DATASETS, images_in
from bench.engine import job as jobs
from bench.spec import Spec
from bench.store import provenance
from bench.store.rows import to_bytes
from bench.store.schema import PROVENANCE
from bench.studies import STUDIES
from bench.studies.images import domain, evaluate
from bench.studies.study import Job
from bench.studies.toy_grid import train
from bench.studies.toy_grid.spec import ToySpec

Row = Mapping[str, Any]

FOLDER = Path(__file__).parent / "fixtures" / "numbers"
DIGITS, SPREAD = FOLDER / "digits.npz", FOLDER / "spread.csv"
CAPABILITY = "AVX512"
"""What torch says of the processor that made the rows, whose name alone is that of many."""

SHORT = {
    "width": 0.25,
    "epochs": 3,
    "samples": 500,
    "bits": "dynamic",
    "temperatures": 20,
    "leapfrog": 2,
    "ais_images": 10,
}
MNIST = ["mnist", "--scale", "quick", "--set", "data=digits", "--data", str(DIGITS)]
MNIST += ["--only", "method=svae_r"]
MNIST += ["--lam", "0.1", "--engine", "sequential", "--device", "cpu"]
MNIST += [word for name, value in SHORT.items() for word in ("--set", f"{name}={value}")]
"""sVAE-r at lambda 0.1 on small networks for 54 steps, with few samples and short annealing."""

RATIOS = ("mse_x", "mse_z", "frechet")
DIFFERENCES = ("inception_score", "high_quality", "log_likelihood", "bdmc_gap")
BLOCKS = ((1, 2), (3, 6), (7, 18), (19, 36), (37, 54))
"""Steps of MNIST's training whose losses are compared together."""


def toy_specs() -> list[ToySpec]:
    """Returns quick's trainings of the cheapest update ratio, of seed 0.

    They are 8 configurations with sVAE-r and ALICE at lambda 0, 0.01 and 0.1.
    """
    specs = STUDIES["toy_grid"].specs("quick")
    return [spec for spec in specs if (spec.critic_steps, spec.model_steps) == (1, 1)]


def retrain(specs: Sequence[Spec], folder: Path) -> None:
    """Trains specs of one study and scale, as a worker does, and stores their rows."""
    study = STUDIES[specs[0].study]
    study.store(folder, specs[0].scale).prepare()
    for stack in study.stacks(specs, "cpu"):
        assert jobs.run_job(Job(tuple(stack), str(folder), "cpu", {})).end == "done"


def known_digits(patch: pytest.MonkeyPatch) -> None:
    """Makes the digits a data set, which the suite's classifier of MNIST scores."""
    patch.setitem(DATASETS, "digits", images_in(str(DIGITS), channels=1, size=28))
    patch.setattr(evaluate, "classifier_of", lambda images: "mnist")


def retrained(study: str, folder: Path) -> list[Row]:
    """Returns the rows of the toy study or of MNIST, trained by today's code."""
    if study == "toy_grid":
        retrain(toy_specs(), folder)
    else:
        with pytest.MonkeyPatch.context() as patch:
            known_digits(patch)
            patch.setattr(report, "after_run", lambda *_: None)
            assert run.main([*MNIST, "--results", str(folder)]) == 0
    return rows(study, folder)


def rows(study: str, folder: Path, scale: str = "quick") -> list[Row]:
    """Returns all stored rows of this scale, also rows of other code than today's."""
    return replace(STUDIES[study], stale=True).load(folder, scale)[0].to_pylist()


def committed(study: str) -> list[Row]:
    """Returns the committed rows of what `retrained` trains."""
    if study == "mnist":
        return rows(study, FOLDER)
    wanted = {spec.id for spec in toy_specs()}
    return [row for row in rows(study, report.REFERENCE) if row["id"] in wanted]


def smoke(folder: Path) -> list[Row]:
    """Returns the toy rows of `smoke`, seed 0, in this folder, and trains them if none is there."""
    specs = STUDIES["toy_grid"].specs("smoke")
    found = rows("toy_grid", folder, "smoke")
    if not found:
        retrain(specs, folder)
        found = rows("toy_grid", folder, "smoke")
    wanted = {spec.id for spec in specs}
    return [row for row in found if row["id"] in wanted]


def early(row: Row, points: int) -> Row:
    """Returns the beginning of a row's traces, with so many points, and its names."""
    kept = {name: row[name] for name in ("id", "label", "lam")}
    for name in ("trace_epoch", "trace_step", "critic_loss", "model_loss"):
        if name in row:
            kept[name] = row[name][:points]
    if "decoder_gradient" in row:
        traces = dict(row["decoder_gradient"])
        kept["decoder_gradient"] = {name: trace[:points] for name, trace in traces.items()}
    return kept


def pairs(ours: Iterable[Row], theirs: Iterable[Row]) -> list[tuple[Row, Row]]:
    """Returns our rows beside the stored rows of the same ids."""
    known = {row["id"]: row for row in theirs}
    found = [(row, known[row["id"]]) for row in ours]
    assert len(found) == len(known) > 0, "another number of rows is stored"
    return found


# To the last bit


def made_here(row: Row) -> bool:
    """Says whether this processor, with these versions, has made the row."""
    here = {**provenance.versions(), "device_name": provenance.cpu_name()}
    same = all(here[name] == row[name] for name in ("device_name", "torch", "numpy"))
    return same and torch.backends.cpu.get_cpu_capability() == CAPABILITY


def unequal(ours: Iterable[Row], theirs: Iterable[Row]) -> list[str]:
    """Returns a line for each number of our rows that differs, in any bit, from the stored rows.

    A column that is null in the stored row is younger than the row.
    """
    left_out = {*PROVENANCE, "evaluation_seconds"}
    found = []
    for row, other in pairs(ours, theirs):
        younger = {name for name, value in other.items() if value is None}
        for name in row.keys() - left_out - younger:
            mine, stored = dict(_flat(name, row[name])), dict(_flat(name, other[name]))
            for at in mine.keys() | stored.keys():
                a, b = mine.get(at), stored.get(at)
                if a != b and not (a != a and b != b):
                    found.append(f"{row['id']} ({_cell(row)}): {at} is {a!r}, stored is {b!r}")
    return sorted(found)


def _flat(name: str, value: Any) -> Iterable[tuple[str, Any]]:
    if isinstance(value, Mapping):
        value = list(value.items())
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        yield name, value
        return
    for i, each in enumerate(value):
        named = isinstance(each, tuple)  # arrow gives maps as pairs
        yield from _flat(f"{name} {each[0] if named else i}", each[1] if named else each)


# Within the spread


def distances(ours: Iterable[Row], theirs: Iterable[Row]) -> dict[tuple[str, str], float]:
    """Returns how far our rows are from the stored rows, by method and lambda, and by number.

    A distance is the median over the rows of a method and lambda, since single rows drift far.
    Distances of the decoder's gradient, errors and the Fréchet distance are of logarithms. The
    distance of a number that one row lacks is infinite.
    """
    found: dict[tuple[str, str], list[float]] = {}
    for row, other in pairs(ours, theirs):
        for name, distance in _apart(row, other).items():
            found.setdefault((_cell(row), name), []).append(distance)
    return {key: median(values) for key, values in found.items()}


def _cell(row: Row) -> str:
    return f"{row['label']} at lambda {row['lam']:g}"


def _apart(row: Row, other: Row) -> dict[str, float]:
    """Returns the distance of every number of a row from the stored row's."""
    found = {name: _log_ratio(row[name], other[name]) for name in RATIOS if name in row}
    found |= {name: _difference(row[name], other[name]) for name in DIFFERENCES if name in row}
    if "decoder_gradient" in row:
        mine, stored = (dict(each["decoder_gradient"]) for each in (row, other))
        for i, epoch in enumerate(row["trace_epoch"]):
            each = [_log_ratio(mine[method][i], trace[i]) for method, trace in stored.items()]
            found[f"decoder_gradient at epoch {epoch}"] = max(each)
    for name in ("critic_loss", "model_loss") if "trace_step" in row else ():
        for first, last in BLOCKS:
            steps = [i for i, step in enumerate(row["trace_step"]) if first <= step <= last]
            if steps:
                each = [_difference(row[name][i], other[name][i]) for i in steps]
                found[f"{name} at steps {first} to {last}"] = max(each)
    return found


def _difference(a: float | None, b: float | None) -> float:
    return _distance(a, b, lambda a, b: abs(a - b))


def _log_ratio(a: float | None, b: float | None) -> float:
    return _distance(a, b, lambda a, b: abs(math.log(a / b)) if a > 0 < b else math.inf)


def _distance(a: float | None, b: float | None, of: Callable[[float, float], float]) -> float:
    """Returns a distance of two numbers; null and nan are infinitely far from every other."""
    a, b = (None if each is None or math.isnan(each) else each for each in (a, b))
    if a == b:
        return 0.0
    return math.inf if a is None or b is None else of(a, b)


def spread(study: str) -> dict[str, float]:
    """Returns the largest measured distance of every number of a study."""
    with SPREAD.open() as file:
        lines = [line for line in csv.DictReader(file) if line["study"] == study]
    measured = [name for name in lines[0] if name not in ("study", "number")]
    return {line["number"]: max(float(line[each]) for each in measured) for line in lines}


def tolerance(largest: float) -> float:
    """Returns how far rows may be from rows of another processor.

    Rounding grows from step to step until runs are as far apart as they get. While it grows, an
    unknown processor may be some steps ahead of the measured ones.
    """
    return largest * (10 if largest < 0.01 else 3)


def beyond(study: str, ours: Iterable[Row], theirs: Iterable[Row]) -> list[str]:
    """Returns a line for each distance beyond its tolerance."""
    known = spread(study)
    found = []
    for (cell, number), distance in distances(ours, theirs).items():
        allowed = tolerance(known[number])
        if distance > allowed:
            found.append(
                f"{cell}: {number} is {distance:.2g} from the committed rows, "
                f"{distance - allowed:.2g} beyond the tolerance of {allowed:.2g}"
            )
    return found


# Measurement

SETTINGS: dict[str, dict[str, str]] = {
    "no AVX in torch": {"ATEN_CPU_CAPABILITY": "default"},
    "SSE4.1": {
        "ATEN_CPU_CAPABILITY": "default",
        "MKL_CBWR": "COMPATIBLE",
        "ONEDNN_MAX_CPU_ISA": "SSE41",
    },
    "AVX2": {"ATEN_CPU_CAPABILITY": "avx2", "MKL_CBWR": "AVX2", "ONEDNN_MAX_CPU_ISA": "AVX2"},
    **{f"nudge {i}": {"SVAE_BENCH_NUDGE": str(i)} for i in (1, 2, 3, 4)},
}
"""Environments that round as other processors do. A nudge moves first weights by one bit."""


def nudge(patch: pytest.MonkeyPatch, seed: int) -> None:
    """Makes first weights larger or smaller by one bit, as if another processor had rounded."""

    @torch.no_grad()
    def move(parameters: Iterable[torch.Tensor]) -> None:
        rng = torch.Generator().manual_seed(seed)
        for parameter in parameters:
            up = torch.rand(parameter.shape, generator=rng) < 0.5
            towards = torch.where(up, math.inf, -math.inf)
            parameter.copy_(torch.nextafter(parameter, towards))

    class ToyNetworks(train.ToyNetworks):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            banks = (*self.coders.banks, *self.critics.banks)
            move(bank.parameters for bank in banks)

    class ImageNetworks(domain.ImageNetworks):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            move((*self.models(), *self.critics()))

    patch.setattr(train, "ToyNetworks", ToyNetworks)
    patch.setattr(domain, "ImageNetworks", ImageNetworks)


def measure() -> dict[str, dict[str, float]]:
    """Returns the largest distance of every number over methods and lambdas, by study."""
    found: dict[str, dict[str, float]] = {}
    with pytest.MonkeyPatch.context() as patch, TemporaryDirectory() as folder:
        if seed := os.environ.get("SVAE_BENCH_NUDGE"):
            nudge(patch, int(seed))
        patch.setenv("SVAE_BENCH_DATA", f"{folder}/cache")
        for study in ("toy_grid", "mnist"):
            each = distances(retrained(study, Path(folder)), committed(study))
            for (_, number), distance in each.items():
                known = found.setdefault(study, {})
                known[number] = max(distance, known.get(number, 0.0))
    return found


def measure_spread(settings: Sequence[str]) -> None:
    """Adds columns to spread.csv: the distances of each setting, measured by a process of its own.

    Columns name the processor. Those of other processors stay.
    """
    with SPREAD.open() as file:
        lines = list(csv.DictReader(file))
    for setting in settings:
        code = "import json; from tests import numbers; print(json.dumps(numbers.measure()))"
        options: dict[str, Any] = {"env": {**os.environ, **SETTINGS[setting]}, "check": True}
        done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, **options)
        found = json.loads(done.stdout.splitlines()[-1])
        print(setting, found, flush=True)
        for line in lines:
            measured = found[line["study"]][line["number"]]
            line[f"{setting} on {provenance.cpu_name()}"] = f"{measured:.2g}"
    with SPREAD.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*lines[0]], lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)


def store_row() -> None:
    """Writes MNIST's row. Refuses a checkout with changes, which no commit would describe."""
    if provenance.commit()["dirty"] is not False:
        raise SystemExit("the checkout has changes: commit them first")
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SVAE_BENCH_DATA", f"{folder}/cache")
        made = retrained("mnist", Path(folder))
        schema = STUDIES["mnist"].store(FOLDER, "quick").rows.columns
        (FOLDER / "mnist").mkdir(exist_ok=True)
        content = to_bytes(pa.Table.from_pylist([dict(row) for row in made], schema=schema))
        (FOLDER / "mnist" / "quick.parquet").write_bytes(content)


if __name__ == "__main__":
    if sys.argv[1] == "row":
        store_row()
    else:
        measure_spread(sys.argv[2:] or [*SETTINGS])
