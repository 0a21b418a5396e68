"""The theory study trains models with densities, for which the paper's argument can be computed.

| experiment | model | data | question |
|---|---|---|---|
| modes | one Gaussian, no code | two modes of one dimension | which divergence covers both |
| supports | encoder and decoder with Gaussian heads | five Gaussians | Figures 1 and 2; q(z) |
| descent | linear Gaussian | a Gaussian in 2, 5 and 10 dimensions | does (14) descend KL_s |
| vanishing | linear Gaussian, frozen | a Gaussian at several distances | where (18) vanishes |
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from bench.spec import grid
from bench.studies.study import Beat, Job, Needs, Rows, Study, refuse_images
from bench.studies.theory.spec import (
    DESCENT,
    EXACT,
    JOINT,
    LINE,
    MODES,
    SQUARE,
    SUPPORTS,
    VANISHING,
    TheorySpec,
)

if TYPE_CHECKING:
    import numpy as np

    from bench.render.drawings import Drawing
    from bench.render.page import Page


@dataclass(frozen=True, kw_only=True)
class Part:
    """Trainings of one experiment: every combination of these methods, lambdas and values."""

    experiment: str
    methods: Sequence[str]
    lams: Sequence[float] = (0.0,)
    axes: Mapping[str, Sequence[Any]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class TheoryStudy(Study[TheorySpec]):
    """Trains small models whose joints have densities."""

    first_score: ClassVar[str] = "kl_s"
    apart: ClassVar[tuple[str, ...]] = ("experiment", "dimension", "distance")
    explained: ClassVar[str] = "theory"
    logs: ClassVar[bool] = True
    explored: ClassVar[Mapping[str, Sequence[str]]] = {
        "score": ("kl_s",),
        "error": ("mse_x",),
        "share": ("high_quality",),
    }
    parts: Mapping[str, Sequence[Part]]  # by scale

    def specs(
        self,
        scale: str,
        methods: Sequence[str] | None = None,
        lams: Sequence[float] | None = None,
        lrs: Sequence[float] | None = None,
        seeds: int | None = None,
        precision: str = "float32",
        given: Mapping[str, Sequence[Any]] | None = None,
    ) -> list[TheorySpec]:
        """Returns all trainings at `scale`; None keeps the study's own values.

        A part trains those of `methods` that it has. A part that has svae_r trains every other
        reduction of logits too, unless its model is frozen. `lams` replace the values of parts that
        have a lambda above 0. `given` replaces values that a part names or that all parts have.
        Raises ValueError for values that can't be trained.
        """
        from models.objectives import OBJECTIVES

        found: dict[TheorySpec, None] = {}
        known = {*self.axes[scale], *(name for part in self.parts[scale] for name in part.axes)}
        if unknown := sorted((given or {}).keys() - known):
            raise ValueError(f"--set {unknown[0]}=...; allowed: --only {unknown[0]}=...")
        for part in self.parts[scale]:
            more = OBJECTIVES if "svae_r" in part.methods and part.experiment != VANISHING else ()
            names = part.methods
            if methods is not None:
                names = [name for name in methods if name in {*part.methods, *more}]
            axes = {**self.axes[scale], **part.axes}
            axes |= {name: each for name, each in (given or {}).items() if name in axes}
            if lrs:
                axes["lr"] = list(dict.fromkeys(lrs))
            axes |= {"seed": self.seeds_at(scale, seeds), "precision": [precision]}
            lam = lams if lams is not None and max(part.lams) > 0 else part.lams
            common = {"study": [self.name], "scale": [scale], "experiment": [part.experiment]}
            specs = grid(TheorySpec, **common, **axes, lam=list(dict.fromkeys(lam)), method=names)
            found |= dict.fromkeys(specs)
        return list(found)

    def every_method(self) -> dict[str, bool]:
        from models.explicit import EXPLICIT
        from models.objectives import OBJECTIVES

        return {name: name in OBJECTIVES for name in EXPLICIT}

    def label(self, method: str, lam: float) -> str:
        from models.explicit import EXPLICIT

        found = EXPLICIT[method]
        return found.label_cycle if lam > 0 and found.label_cycle else found.label

    def method_source(self, method: str) -> Sequence[str]:
        from bench.store.source import there

        own = f"models.objectives:OBJECTIVES[{method}]"
        if there(own):
            return [
                own,
                *(f"models.objectives:{name}" for name in ("squared_error", "regularised")),
            ]
        return [f"models.explicit:EXPLICIT[{method}]"]

    def columns(self) -> dict[str, Any]:
        """Returns the columns of divergences, of scores at the end and of what is traced."""
        numbers = ("kl_s_start", "kl_pq", "kl_qp", "kl_s", "prior_pq", "prior_qp", "holes")
        numbers += ("mean", "sd", "mse_x", "energy_x", "energy_z", "high_quality")
        traced = {"trace_batch": "ints", "traces": "float32s by name"}
        return {**dict.fromkeys(numbers, float), "modes": int, "n_samples": int, **traced}

    def sample_columns(self) -> dict[str, Any]:
        """Returns columns of densities on the grids of `evaluate`."""
        return dict.fromkeys(("density_x", "density_z"), "float32s")

    def arrays(self, sample: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Returns densities, on a line or on a square (rows: second coordinate)."""
        side = SQUARE[2]
        return {
            name: each.reshape(side, side) if len(each) == side**2 else each
            for name, each in super().arrays(sample).items()
        }

    def drawings(
        self, row: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
    ) -> Sequence[Drawing]:
        """Returns traces of one unit each, and densities on a line or a square."""
        import numpy as np

        from bench.render.drawings import curves_over, of_arrays

        found, traces = list[Any](), row["traces"] or {}
        for title, names in TRACED.items():
            lines = {name: each for name, each in traces.items() if re.fullmatch(names, name)}
            found += [curves_over(title, "batch", row["trace_batch"], lines)] if lines else []
        if (line := arrays.get("density_x")) is not None and line.ndim == 1:
            lines = {"p(x) at the end": line}
            found.append(curves_over("density of samples", "x", np.linspace(*LINE), lines))
            arrays = {}
        return [*found, *of_arrays(arrays)]

    def check(
        self,
        specs: Sequence[TheorySpec],
        data: Path | None,
        weights: str | None,
        given: Collection[str] = (),
        fetch: bool = True,
    ) -> Sequence[TheorySpec]:
        """Returns the specs. Raises UsageError for data or a classifier, as the study has both."""
        refuse_images(self.name, data, weights)
        return specs

    def needs(self, spec: TheorySpec) -> Needs:
        from bench.studies.theory import job

        return job.needs(spec)

    def stacks(self, specs: Sequence[TheorySpec], device: str) -> list[list[TheorySpec]]:
        from bench.studies.theory import job

        return job.stacks(specs)

    def seconds(self, spec: TheorySpec, rate: float) -> float:
        """Returns about the seconds of a training: small steps cost their calls, not products."""
        from bench.studies.theory.data import BATCHES

        learned = spec.critic_steps if spec.critic == JOINT else 0
        return spec.epochs * BATCHES * (0.0008 * learned + 0.0015 * spec.model_steps)

    def estimate(self, stacks: Sequence[Sequence[TheorySpec]], device: str) -> list[float]:
        from bench.studies.theory import job

        return job.estimate(stacks, device)

    def train(self, job: Job, beat: Beat) -> tuple[Rows, Rows]:
        from bench.studies.theory.job import train

        return train(job, beat)

    def report(self, scale: str, results: Path, other: Path | None = None) -> Page:
        from bench.studies.theory.report import build

        return build(self, scale, results, other)


TRACED = {
    "divergences, nats": r"kl_\w+|believed|value",
    "cosine of the decoder's gradient with that of a divergence": "decoder follows .*",
    "cosine of the encoder's gradient with that of a divergence": "encoder follows .*",
    "loss of the critic, and its excess over that of f*": "loss|excess",
    "gradient at the decoder, by method": "gradient .*",
}
"""What is traced, by patterns of names, as it can be drawn."""
_DIVERGENCES = ("vae", "vae_z", "vae_xz")
_DISTANCES = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)


def _parts(
    epochs: tuple[int, int, int, int], dimensions: Sequence[int], distances: Sequence[float]
) -> list[Part]:
    """Returns the trainings of all experiments, for so many epochs of each."""
    modes, supports, descent, vanishing = ({"epochs": [each]} for each in epochs)
    five, learned = {"critic_steps": [5]}, {"critic": [JOINT]}
    both = ("svae_r", "alice")
    return [
        Part(
            experiment=MODES,
            methods=(*_DIVERGENCES, *both, "svae_exact"),
            axes={**modes, "lr": [1e-2]},
        ),
        # Optimal and learned critics share their start, so both have the same updates.
        Part(
            experiment=SUPPORTS,
            methods=(*_DIVERGENCES, *both, "svae_exact"),
            axes=supports | five | {"critic": [EXACT]},
        ),
        Part(
            experiment=SUPPORTS,
            methods=both,
            lams=(0.0, 0.1),
            axes=supports | five | learned,
        ),
        Part(
            experiment=SUPPORTS,
            methods=("svae_exact", "joint_wgan_gp"),
            axes=supports | five | learned,
        ),
        Part(
            experiment=SUPPORTS,
            methods=("vae",),
            axes=supports | {"critic_steps": [1]},
        ),
        Part(
            experiment=SUPPORTS,
            methods=("svae_r", "joint_wgan_gp"),
            axes=supports | learned | {"critic_steps": [1]},
        ),
        Part(
            experiment=DESCENT,
            methods=(*both, "svae_exact"),
            axes=descent | five | learned | {"dimension": dimensions, "lr": [3e-3]},
        ),
        Part(
            experiment=VANISHING,
            methods=("svae_r",),
            axes=vanishing | learned | {"distance": distances, "model_steps": [0]},
        ),
    ]


THEORY = TheoryStudy(
    name="theory",
    kind=TheorySpec,
    title="Theory study: what sections 2 to 4 of the paper say, in models with densities",
    axes={
        "smoke": {"width": [16], "batch": [64]},
        "quick": {"width": [64], "batch": [256]},
        "paper": {"width": [256], "batch": [256]},
    },
    methods=(*_DIVERGENCES, "svae_r", "alice", "svae_exact", "joint_wgan_gp"),
    lams=dict.fromkeys(("smoke", "quick", "paper"), (0.0, 0.1)),
    seeds={"smoke": 1, "quick": 5, "paper": 5},
    parts={
        "smoke": _parts((1, 1, 1, 2), (2,), (1.0, 8.0)),
        "quick": _parts((18, 16, 11, 50), (2, 5, 10), _DISTANCES),
        "paper": _parts((50, 100, 50, 200), (2, 5, 10), _DISTANCES),
    },
)
