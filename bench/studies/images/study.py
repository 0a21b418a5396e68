"""Defines what the image studies share: their columns and their hooks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from bench import plugins
from bench.studies.images.spec import ImageSpec, dataset
from bench.studies.study import Beat, Job, Kept, Needs, Rows, Study

if TYPE_CHECKING:
    import numpy as np

    from bench.render.page import Page
    from bench.scores.metrics import Metric
    from bench.studies.images.model import ImageModel
    from bench.studies.images.runs import Asked

AT_ZERO = ("vae", "avb", "avb_ac", "aae", "as_vae", "nf_vae", "iaf_vae", "gan", "dcgan", "wgan")
AT_ZERO += ("wgan_gp", "wgan_gp_residual", "ebgan")
"""Lambda means nothing to these methods."""

OWN_LAMS = {
    **dict.fromkeys(AT_ZERO, (0.0,)),
    "svae_r_density": (0.0, 1e-4, 1e-3),  # this lambda weighs nats
}
SCORES = ("inception_score", "frechet")
SHARES = tuple(f"neighbour_{name}" for name in ("precision", "recall", "density", "coverage"))
"""Scores by the suite's classifiers, and those by the classifier of seed 0 alone."""
NO_AIS = {"ais_images": [0]}
TINY = {**NO_AIS, "width": [0.125], "lr": [1e-3], "epochs": [1], "samples": [500]}


@dataclass(frozen=True, kw_only=True)
class ImageStudy(Study[ImageSpec]):
    """Trains one model of images at a time on a core, which it fills, and several on a GPU.

    `page` makes the report, see `Study.report`.
    """

    apart: ClassVar[tuple[str, ...]] = ("data",)
    compares: ClassVar[bool] = True
    names_settings: ClassVar[bool] = True
    explained: ClassVar[str] = "images"
    logs: ClassVar[bool] = True
    explored: ClassVar[Mapping[str, Sequence[str]]] = {
        "score": ("inception_score", "swd"),
        "error": ("mse_x",),
        "share": ("neighbour_coverage", "log_likelihood", "frechet"),
    }
    kind: type[ImageSpec] = ImageSpec
    own_lams: Mapping[str, Sequence[float]] = field(default_factory=lambda: OWN_LAMS)
    page: Callable[[Asked], Page]

    def every_method(self) -> dict[str, bool]:
        from bench.studies.images.domain import domain
        from models.methods import METHODS

        data = self.first_of(next(iter(self.axes)), "data")
        return {name: bool(METHODS[name].label_cycle) for name in domain(data).methods()}

    def method_source(self, method: str) -> Sequence[str]:
        from bench.store.source import there

        home = plugins.home("methods", method)
        own = f"{home or 'models.methods'}:METHODS[{method}]"
        joint = f"{home or 'models.objectives'}:OBJECTIVES[{method}]"
        if there(own):
            return [own, *(_networks(method) if home else [])]
        # A method that neither table shows may come from anywhere in both files.
        shared = [f"models.methods:{name}" for name in ("matching", "_Methods")]
        return [joint, *shared, *([] if there(joint) else [own])]

    def score_source(self) -> Mapping[str, Sequence[str]]:
        """Returns what log p(x) and anchors call, and pins of the classifiers behind scores."""
        from bench.data.sources import DATASETS
        from bench.scores.metrics import OTHERS

        places = {
            "log_likelihood": ["bench.scores.ais:AnnealedRun", "bench.scores.ais:mean_and_se"],
            "anchors": ["bench.studies.images.anchors:anchors"],
        }
        data = self.first_of(next(iter(self.axes)), "data")
        if name := DATASETS[data].classifier if data in DATASETS else "":
            first, others = (
                [f"bench.scores.classifiers:{table}[{name}]"] for table in ("PINNED", "FURTHER")
            )
            places |= dict.fromkeys((*SCORES, *SHARES), first)
            places |= {f"{score}_{seed}": others for seed in OTHERS for score in SCORES}
        return places

    def metrics(self) -> Sequence[Metric]:
        from bench.scores.metrics import IMAGES

        return [*IMAGES, *self.stored_metrics]

    def columns(self) -> dict[str, Any]:
        """Returns the columns of how scores were made, log p(x) and losses.

        Scores and log p(x) are null for a diverged training.
        """
        return {
            "real_score": float,
            "n_splits": int,
            "classifier": str,
            "classifier_sha256": str,
            "classifier_accuracy": float,
            "anchors": "numbers by name",
            # These columns are about scores by ImageNet's classifier, null without its weights.
            "imagenet_n_samples": int,
            "imagenet_n_real": int,
            "imagenet_splits": int,
            "imagenet_shuffle": bool,
            "imagenet_seed": int,
            "imagenet_kid_subsets": int,
            "imagenet_kid_subset_size": int,
            "imagenet_weights_sha256": str,
            "log_likelihood": float,
            "log_likelihood_se": float,
            "log_likelihoods": "floats",
            "bdmc_gap": float,
            "bdmc_gap_se": float,
            "simulated": int,
            "acceptance": float,
            "data_sha256": str,
            "data_place": str,
            "stand_in": bool,
            "steps": int,
            "trace_step": "ints",
            "critic_loss": "floats",
            "model_loss": "floats",
            "evaluation_seconds": float,
        }

    def sample_columns(self) -> dict[str, Any]:
        """Returns columns of up to 64 uint8 images each, (c, h, w) as in `shape`.

        `x` are real test images; `x_rec` are their reconstructions, empty without an encoder.
        """
        return {"shape": "ints", **dict.fromkeys(("x", "x_rec", "samples"), bytes)}

    def arrays(self, sample: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Returns the images of each kind that were kept, uint8 (n, c, h, w)."""
        import numpy as np

        kinds = {name: sample[name] for name in ("x", "x_rec", "samples") if sample[name]}
        return {
            name: np.frombuffer(each, np.uint8).reshape(-1, *sample["shape"])
            for name, each in kinds.items()
        }

    def shows(self, row: Mapping[str, Any]) -> bool:
        """Says whether the images of a row are of no people."""
        return dataset(row["data"]) not in ("celeba", "stand-in faces")

    def check(
        self,
        specs: Sequence[ImageSpec],
        data: Path | None,
        weights: str | None,
        given: Collection[str] = (),
        fetch: bool = True,
    ) -> list[ImageSpec]:
        from bench.studies.images.job import check

        own: dict[str, Any] = {}
        for name in ("data", "images", "batch", "ais_images"):
            for scale in {spec.scale for spec in specs} if name not in given else ():
                own[name] = self.first_of(scale, name)
        return check(specs, data, weights, own, fetch)

    def needs(self, spec: ImageSpec) -> Needs:
        from bench.studies.images.cost import needs

        return needs(spec)

    def stacks(self, specs: Sequence[ImageSpec], device: str) -> list[list[ImageSpec]]:
        """Returns a stack for each training on a CPU, and up to TOGETHER in a stack on a GPU.

        Trainings of a stack share their data set and precision, and take about equally long.
        """
        if device == "cpu":
            return super().stacks(specs, device)
        from bench.studies.images.job import stacks

        return stacks(specs)

    def seconds(self, spec: ImageSpec, rate: float) -> float:
        from bench.studies.images.cost import evaluation_seconds, training_seconds

        return training_seconds(spec, rate) + evaluation_seconds(spec, rate)

    def estimate(self, stacks: Sequence[Sequence[ImageSpec]], device: str) -> list[float]:
        from bench.studies.images.cost import estimate

        return estimate(stacks, device)

    def train(self, job: Job, beat: Beat) -> tuple[Rows, Rows]:
        from bench.studies.images.job import train

        return train(job, beat, self.metrics())

    def absent(self, spec: ImageSpec, imagenet: bool) -> Collection[str]:
        from bench.studies.images.evaluate import absent

        return absent(spec, imagenet)

    def score(self, job: Job, kept: Sequence[Kept], wanted: Sequence[Metric]) -> Rows:
        from bench.studies.images.job import score

        return score(job, kept, wanted)

    def model(self) -> type[ImageModel]:
        from bench.studies.images.model import ImageModel

        return ImageModel

    def clear(self, job: Job) -> None:
        from bench.studies.images.job import clear

        clear(job)

    def report(self, scale: str, results: Path, other: Path | None = None) -> Page:
        from bench.studies.images.runs import Asked

        return self.page(Asked(self, scale, results, other))


def _networks(method: str) -> list[str]:
    """Returns where plug-ins have the source of a method's networks."""
    from models.methods import METHODS

    homes = ((part, plugins.home("networks", part)) for part in METHODS[method].parts.values())
    return [f"{home}:PARTS[{part}]" for part, home in homes if home]
