"""The toy study compares sVAE-r with ALICE on five Gaussians, over a grid of configurations.

| scale | trainings | what | cost |
|---|---|---|---|
| smoke | 8 | 2 configurations, for tests | seconds |
| quick | 432 | 72 configurations at a quarter to an eighth of the width | see README |
| paper | 3,456 | 576 configurations; `--fraction 1/8` trains 72 of them | 25.5 PFLOP |
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from bench import plugins
from bench.cli import UsageError
from bench.studies.study import Beat, Job, Kept, Needs, Rows, Study, refuse_images
from bench.studies.toy_grid.spec import ToySpec

if TYPE_CHECKING:
    import numpy as np

    from bench.render.page import Page
    from bench.scores.metrics import Metric
    from bench.studies.toy_grid.model import ToyModel


@dataclass(frozen=True, kw_only=True)
class ToyStudy(Study[ToySpec]):
    """Trains stacks of small networks on points of the plane."""

    compares: ClassVar[bool] = True
    explained: ClassVar[str] = "toy_grid"
    logs: ClassVar[bool] = True

    def every_method(self) -> dict[str, bool]:
        from models.objectives import OBJECTIVES

        return dict.fromkeys(OBJECTIVES, True)

    def method_source(self, method: str) -> Sequence[str]:
        objectives = "models.objectives"
        shared = [f"{objectives}:{name}" for name in ("squared_error", "regularised")]
        return [f"{plugins.home('methods', method) or objectives}:OBJECTIVES[{method}]", *shared]

    def score_source(self) -> Mapping[str, Sequence[str]]:
        return {"inception_score": ["bench.studies.toy_grid.data:posterior_logits"]}

    def metrics(self) -> Sequence[Metric]:
        from bench.scores.metrics import TOY

        return [*TOY, *self.stored_metrics]

    def columns(self) -> dict[str, Any]:
        """Returns the columns of how scores were made, and of the decoder's gradient by method."""
        return {
            "n_samples": int,
            "n_splits": int,
            "classifier": str,
            "trace_epoch": "ints",
            "decoder_gradient": "float32s by name",  # see `Evaluation.decoder_gradient`
        }

    def sample_columns(self) -> dict[str, Any]:
        """Returns columns of 256 points each, (x0, y0, x1, y1, ...)."""
        return dict.fromkeys(("x", "x_rec", "samples"), "float32s")

    def arrays(self, sample: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Returns points (n, 2), float32, of `x`, `x_rec` and `samples`."""
        return {name: each.reshape(-1, 2) for name, each in super().arrays(sample).items()}

    def check(
        self,
        specs: Sequence[ToySpec],
        data: Path | None,
        weights: str | None,
        given: Collection[str] = (),
        fetch: bool = True,
    ) -> Sequence[ToySpec]:
        """Returns the specs. Raises UsageError for data or a classifier, as the study has both."""
        refuse_images(self.name, data, weights)
        return specs

    def fraction(self, specs: Sequence[ToySpec], size: str) -> list[ToySpec]:
        """Returns the balanced eighth of a grid, see `_eighth`, or a quarter of that: "1/32".

        The quarter has two opposite designs of sizes for each ratio of updates: what one makes deep
        the other makes shallow. Raises UsageError for a grid whose networks do not have two depths
        and two widths.
        """
        levels = [sorted(set(each)) for each in zip(*map(_sizes, specs), strict=True)]
        if [len(each) for each in levels] != [2] * 6:
            wanted = "a selection with two depths and two widths of each network"
            raise UsageError(f"--fraction {size}; allowed: {wanted}")
        ratios = sorted({(spec.critic_steps, spec.model_steps) for spec in specs})
        found = []
        for spec in specs:
            a, b, c, *widths = map(list.index, levels, _sizes(spec))
            ratio = ratios.index((spec.critic_steps, spec.model_steps))
            if widths == _widths(a, b, c) and (size == "1/8" or 2 * (a ^ b) + (a ^ c) == ratio % 4):
                found.append(spec)
        return found

    def needs(self, spec: ToySpec) -> Needs:
        from bench.studies.toy_grid import job

        return job.needs(spec)

    def stacks(self, specs: Sequence[ToySpec], device: str) -> list[list[ToySpec]]:
        from bench.studies.toy_grid import job

        return job.stacks(specs, device)

    def seconds(self, spec: ToySpec, rate: float) -> float:
        from bench.studies.toy_grid import job

        return job.seconds(spec, rate)

    def estimate(self, stacks: Sequence[Sequence[ToySpec]], device: str) -> list[float]:
        """Returns the seconds of stacks: by timed batches on a CPU, by products on a GPU."""
        from bench.studies.cost import matmul_rate
        from bench.studies.toy_grid import job

        if device == "cpu":
            return job.estimate(stacks)
        widths = [width for stack in stacks for spec in stack for width in spec.widths]
        rate = matmul_rate(device, round(sum(widths) / len(widths)))
        return [sum(self.seconds(spec, rate) for spec in stack) for stack in stacks]

    def train(self, job: Job, beat: Beat) -> tuple[Rows, Rows]:
        from bench.studies.toy_grid.job import train

        return train(job, beat)

    def score(self, job: Job, kept: Sequence[Kept], wanted: Sequence[Metric]) -> Rows:
        from bench.studies.toy_grid.job import score

        return score(job, kept, wanted)

    def model(self) -> type[ToyModel]:
        from bench.studies.toy_grid.model import ToyModel

        return ToyModel

    def report(self, scale: str, results: Path, other: Path | None = None) -> Page:
        from bench.studies.toy_grid.report import build

        return build(self, scale, results, other)


def _sizes(spec: ToySpec) -> tuple[int, ...]:
    return (*spec.depths, *spec.widths)


def _widths(a: int, b: int, c: int) -> list[int]:
    """Returns the levels of the widths in `_eighth` that go with these levels of the depths."""
    return [a ^ b, a ^ c, b ^ c]


def _eighth(depths: tuple[int, int], widths: tuple[int, int]) -> list[tuple[int, ...]]:
    """Returns a regular 1/8 fraction of the 2^6 designs of depth and width of three networks.

    The depths take all 8 combinations and each width follows two depths (D = AB, E = AC, F = BC).
    So every pair of levels of two factors appears twice, and main effects are not confounded with
    one another: resolution III. (Box, Hunter & Hunter, *Statistics for Experimenters*, chapter 6.)
    """
    return [
        (*(depths[each] for each in levels), *(widths[each] for each in _widths(*levels)))
        for levels in product((0, 1), repeat=3)
    ]


_DEPTHS = "encoder_depth,decoder_depth,critic_depth"
_WIDTHS = "encoder_width,decoder_width,critic_width"
_STEPS = "critic_steps,model_steps"
_RATIOS = list(product((1, 3, 5), repeat=2))

TOY_GRID = ToyStudy(
    name="toy_grid",
    kind=ToySpec,
    title="Toy study: five Gaussians over a grid of configurations",
    axes={
        "smoke": {
            f"{_DEPTHS},{_WIDTHS}": [(2, 2, 2, 32, 32, 32), (2, 3, 2, 32, 64, 32)],
            _STEPS: [(1, 3)],
            "epochs": [10],
        },
        "quick": {
            f"{_DEPTHS},{_WIDTHS}": _eighth((2, 3), (32, 64)),
            _STEPS: _RATIOS,
            "epochs": [45],
        },
        # Neither paper nor code lists the 576 configurations. This factorisation is ours.
        "paper": {
            _DEPTHS: list(product((2, 3), repeat=3)),
            _WIDTHS: list(product((256, 512), repeat=3)),
            _STEPS: _RATIOS,
            "epochs": [100],
        },
    },
    methods=("svae_r", "alice"),
    lams={"smoke": (0.0, 0.1), "quick": (0.0, 0.01, 0.1), "paper": (0.0, 0.01, 0.1)},
    cost_of_size={1: 1.6, 2: 1.1},
    explored_at="quick",
)
