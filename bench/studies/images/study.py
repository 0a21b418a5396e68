"""What the image studies share: their spec, their columns, their hooks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from bench.spec import Spec
from bench.studies.study import Beat, Job, Rows, Study

if TYPE_CHECKING:
    from bench.scores.metrics import Metric


@dataclass(frozen=True, kw_only=True)
class ImageSpec(Spec):
    """One training of an image study and how it is scored. Defaults are those of `paper` scale."""

    lr: float = 1e-4
    batch: int = 64
    data: str = "mnist"  # the images: a data set's name, see bench.data.sources
    images: int = 0  # training images, the first so many; 0: all
    networks: str = "suite"  # of colour images also "paper", see models.colour
    width: float = 1.0  # of all networks, relative to the paper's
    samples: int = 10_000  # generated images behind inception score and Fréchet distance
    bits: str = "static"  # what AIS sees: the static binarization, or "dynamic": one of our own
    temperatures: int = 1000  # annealed importance sampling
    chains: int = 16
    leapfrog: int = 10
    ais_images: int = 100  # 0: no annealed importance sampling

    # In "bf16" training rounds what goes into products and what comes out; scores are float32's.
    PRECISIONS: ClassVar[tuple[str, ...]] = (*Spec.PRECISIONS, "bf16")
    UNPAIRED: ClassVar[tuple[str, ...]] = (
        *Spec.UNPAIRED,
        *("samples", "bits", "temperatures", "chains", "leapfrog", "ais_images"),
    )

    @property
    def simulated(self) -> int:
        """Images simulated from the model, which carry the BDMC gap: one for five real ones."""
        return max(2, self.ais_images // 5) if self.ais_images else 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.one_of("bits", ("static", "dynamic"))
        self.one_of("networks", ("suite", "paper"))
        self.at_least(batch=2, samples=10, temperatures=2, ais_images=0, images=0)
        self.at_least(chains=1, leapfrog=1)
        if not 0 < self.width <= 4:
            raise ValueError(f"width is {self.width}; allowed: a number > 0, at most 4")


@dataclass(frozen=True, kw_only=True)
class ImageStudy(Study[ImageSpec]):
    """Trains one model of images at a time."""

    def every_method(self) -> dict[str, bool]:
        from bench.studies.images import job

        return job.methods(self)

    def metrics(self) -> Sequence[Metric]:
        from bench.scores.metrics import IMAGES

        return IMAGES

    def columns(self) -> dict[str, Any]:
        """How the scores were made, log p(x), and the losses; null where diverged."""
        return {
            "real_score": float,  # inception score of the real test images
            "n_splits": int,
            "classifier": str,  # of the suite, its weights and its own test accuracy
            "classifier_sha256": str,
            "classifier_accuracy": float,
            # How the scores by ImageNet's classifier were made; null without its weights.
            "imagenet_n_samples": int,
            "imagenet_n_real": int,
            "imagenet_splits": int,
            "imagenet_shuffle": bool,
            "imagenet_seed": int,
            "imagenet_kid_subsets": int,
            "imagenet_kid_subset_size": int,
            "imagenet_weights_sha256": str,
            "log_likelihood": float,  # AIS's lower bound, nats, mean over `ais_images`
            "log_likelihood_se": float,
            "log_likelihoods": "floats",  # of each image
            "bdmc_gap": float,  # upper minus lower bound on images simulated from the model
            "bdmc_gap_se": float,
            "simulated": int,  # so many of them
            "acceptance": float,  # of the trajectories
            "data_sha256": str,  # of the images
            "stand_in": bool,  # drawn, not photographed or written by anybody
            "steps": int,
            "trace_step": "ints",  # losses over training
            "critic_loss": "floats",
            "model_loss": "floats",
            "evaluation_seconds": float,  # scores and AIS; `train_seconds` has neither
        }

    def sample_columns(self) -> dict[str, Any]:
        """Up to 64 uint8 images a column, each (c, h, w) as in `shape`: real test images, their
        reconstructions (none without an encoder), samples."""
        return {"shape": "ints", **dict.fromkeys(("x", "x_rec", "samples"), bytes)}

    def check(
        self, specs: Sequence[ImageSpec], data: Path | None, weights: str | None
    ) -> list[ImageSpec]:
        from bench.studies.images import job

        return job.check(self, specs, data, weights)

    def stacks(self, specs: Sequence[ImageSpec], device: str) -> list[list[ImageSpec]]:
        """Every training of images is a job of its own: one model fills a core."""
        return [[spec] for spec in specs]

    def seconds(self, spec: ImageSpec, rate: float) -> float:
        from bench.studies.images import cost

        return cost.seconds(spec, rate)

    def train(self, job: Job, beat: Beat) -> tuple[Rows, Rows]:
        from bench.studies.images.job import train

        return train(job, beat)

    def clear(self, job: Job) -> None:
        from bench.studies.images.job import clear

        clear(job)


AT_ZERO = ("vae", "avb", "avb_ac", "aae", "as_vae", "nf_vae", "iaf_vae", "gan", "dcgan", "wgan")
AT_ZERO += ("wgan_gp", "wgan_gp_residual", "ebgan")
"""Methods to which lambda means nothing."""

OWN_LAMS = {
    **dict.fromkeys(AT_ZERO, (0.0,)),
    "svae_r_density": (0.0, 1e-4, 1e-3),  # nats
}
NO_AIS = {"ais_images": [0]}
TINY = {**NO_AIS, "width": [0.125], "lr": [1e-3], "epochs": [1], "samples": [500]}
