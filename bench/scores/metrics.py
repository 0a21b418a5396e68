"""Defines the metrics of generated points and images, by formulas in float64, and lists them.

A metric is one function and one line in `TOY` or `IMAGES`. The line has its columns and heading;
the function's docstring explains it in captions.
"""

import json
import sys
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.special import log_softmax

from bench import plugins
from bench.cli import UsageError
from bench.scores.neighbours import Neighbours, compare

SPLITS, SEED, SUBSETS, SUBSET_SIZE = 10, 2020, 100, 1000
"""torch-fidelity's defaults: splits of the inception score, seed of ImageNet's scores, number and
largest size of KID's subsets."""
NEAR, COVERED = 0.6, 20
"""A toy sample has high quality within NEAR (3 sd) of a centre. COVERED of them cover a mode."""


def inception_score(
    logits: np.ndarray, splits: int = SPLITS, shuffle: bool = True, seed: int = 0
) -> tuple[float, float]:
    """Returns exp E KL(p(y|x) || p(y)) of logits (n, classes): mean and sd over splits.

    Salimans et al. 2016. The function equals torch-fidelity's `isc_features_to_metric`, which needs
    torch. The shuffle keeps sorted samples out of single-class splits.

    Raises ValueError for fewer samples than splits and for logits that are not finite.
    """
    logits = np.asarray(logits, dtype=np.float64)
    n = len(logits)
    if not 1 <= splits <= n:
        raise ValueError(f"splits is {splits}; allowed: 1 to the number of samples, {n}")
    if not np.isfinite(logits).all():
        raise ValueError("logits are not finite")
    if shuffle:
        logits = logits[np.random.RandomState(seed).permutation(n)]
    bounds = [i * n // splits for i in range(1, splits)]
    scores = []
    for part in np.split(log_softmax(logits, axis=1), bounds):
        log_marginal = np.logaddexp.reduce(part, axis=0) - np.log(len(part))
        scores.append(np.exp((np.exp(part) * (part - log_marginal)).sum(1).mean()))
    return float(np.mean(scores)), float(np.std(scores))


@dataclass(frozen=True)
class Gaussian:
    """Holds the first two moments of features: mean (d,) and covariance (d, d), float64."""

    mean: np.ndarray
    covariance: np.ndarray

    @classmethod
    def of(cls, features: np.ndarray) -> "Gaussian":
        """Returns the moments of features (n, d), the covariance over n - 1.

        Raises ValueError for fewer than 2 samples and for features that are not finite.
        """
        features = np.asarray(features, dtype=np.float64)
        if features.ndim != 2 or len(features) < 2:
            raise ValueError(f"features are {features.shape}; allowed: (n, d) with n at least 2")
        if not np.isfinite(features).all():
            raise ValueError("features are not finite")
        return cls(features.mean(0), np.atleast_2d(np.cov(features, rowvar=False)))

    def root(self) -> np.ndarray:
        """Returns the symmetric square root of the covariance; eigenvalues below 0 count as 0."""
        values, axes = np.linalg.eigh(self.covariance)
        return axes * np.sqrt(values.clip(0)) @ axes.T


def frechet_distance(a: np.ndarray | Gaussian, b: np.ndarray | Gaussian) -> float:
    """Returns the squared Fréchet distance between Gaussians fitted to two sets of features (n, d).

    |m_a - m_b|^2 + tr A + tr B - 2 tr (A B)^(1/2), as Heusel et al. 2017 report it. The last trace
    is the sum of the singular values of A^(1/2) B^(1/2), which is safe for covariances of any rank.
    torch-fidelity takes roots of eigenvalues and returns nan for few samples.

    Raises ValueError for features that are not finite, fewer than 2, or of different d.
    """
    a, b = (each if isinstance(each, Gaussian) else Gaussian.of(each) for each in (a, b))
    if a.mean.shape != b.mean.shape:
        raise ValueError(f"features have {len(a.mean)} and {len(b.mean)} dimensions")
    cross = np.linalg.svd(a.root() @ b.root(), compute_uv=False).sum()
    spread = np.trace(a.covariance) + np.trace(b.covariance) - 2 * cross
    return float(np.square(a.mean - b.mean).sum() + max(spread, 0))


def kernel_distance(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """Returns KID between two sets of features (n, d): mean and sd over subsets.

    Bińkowski et al. 2018. Raises UsageError if torch-fidelity does not know a setting.
    """
    import torch
    from torch_fidelity.defaults import DEFAULTS
    from torch_fidelity.metric_kid import kid_features_to_metric

    settings = {"kid_subsets": SUBSETS, "kid_subset_size": subset_size(a, b), "rng_seed": SEED}
    # torch-fidelity ignores settings that it does not know.
    if unknown := sorted(settings.keys() - DEFAULTS.keys()):
        raise UsageError(f"this torch-fidelity has no {', '.join(unknown)}; allowed: 0.4")
    both = (torch.as_tensor(each) for each in (a, b))
    mean, sd = kid_features_to_metric(*both, **settings, verbose=False).values()
    return float(mean), float(sd)


def subset_size(a: np.ndarray, b: np.ndarray) -> int:
    """Returns the size of KID's subsets of two sets of features."""
    return min(SUBSET_SIZE, len(a), len(b))


# The list of all metrics


class Absent(AttributeError):
    """A metric asked for something that this model or these data do not have."""


class Outputs:
    """Holds by name all that a metric may ask for: a model's outputs and facts about real data.

    Points are (n, 2), images (n, c, h, w) in [0, 1]. There are `samples` from the prior, real `x`
    and, with an encoder, `x_rec`. The toy study also has codes `z` and `z_rec` and `centres`.
    Methods that match joint distributions have `x_rec_batch`, by batch norm with the statistics of
    each batch. A classifier gives `logits` (n, classes) and `features` (n, d) of the samples,
    `real_features` (m, d) of real test images, and `real`, the moments of these. The classifiers of
    seeds 1 and 2 give `logits_1`, `features_1`, `real_1` and so on. ImageNet's classifier gives
    `imagenet_logits`, `imagenet_features` and `imagenet_real` (m, d). Images have `patches` and
    `real_patches`, see `bench.scores.swd`, and `swd_real`. A row lacks a metric that asks for what
    is not there.
    """

    def __init__(self, **known: Any) -> None:
        """Takes everything by name; None counts as missing."""
        vars(self).update({name: each for name, each in known.items() if each is not None})

    def __getattr__(self, name: str) -> Any:
        raise Absent(name)


@dataclass(frozen=True)
class Metric:
    """Makes one number of a model, or several, and says how they are stored and shown.

    The function takes `Outputs` and returns a number of `kind` for each column. Tables show the
    first column under `heading`; rows also store other columns, such as an sd. The first paragraph
    of the function's docstring explains the column in captions.
    """

    columns: tuple[str, ...]
    function: Callable[[Outputs], Any] = field(hash=False)  # a user's object may have no hash
    heading: str
    digits: int = 3
    kind: type = float

    def __post_init__(self) -> None:
        if isinstance(self.columns, str):
            raise ValueError(f"columns is {self.columns!r}; allowed: a tuple of names")

    @property
    def explanation(self) -> str:
        """Says what the first column means."""
        return " ".join((self.function.__doc__ or "").split("\n\n")[0].split())

    def as_json(self) -> str:
        """Returns all but the function, for reports that do not have it."""
        told = {"columns": self.columns, "heading": self.heading, "digits": self.digits}
        return json.dumps({**told, "kind": self.kind.__name__, "explanation": self.explanation})

    @classmethod
    def stored(cls, told: str) -> "Metric":
        """Returns a metric that can be shown, from `as_json`. Raises ValueError or KeyError."""

        def function(outputs: Outputs) -> Any:
            raise Absent("the plug-in of this metric")

        about = json.loads(told)
        function.__doc__ = about.pop("explanation")
        kind = {"int": int, "bool": bool}.get(about.pop("kind"), float)
        return cls(tuple(about.pop("columns")), function, kind=kind, **about)

    def values(self, outputs: Outputs) -> dict[str, Any]:
        """Returns the values by column.

        Raises Absent if the function asks for what is not there. Raises ValueError if it does not
        return a number for every column.
        """
        found = self.function(outputs)
        found = found if isinstance(found, tuple) else (found,)
        numbers = all(isinstance(each, int | float | np.number) for each in found)
        if not numbers or len(found) != len(self.columns):
            kinds = ", ".join(type(each).__name__ for each in found)
            allowed = f"{len(self.columns)} number(s) for {', '.join(self.columns)}"
            raise ValueError(f"returned {kinds or 'nothing'}; allowed: {allowed}")
        return dict(zip(self.columns, map(self.kind, found), strict=True))


def measure(metrics: Sequence[Metric], outputs: Outputs) -> dict[str, Any]:
    """Returns the part of a row that these metrics make, without metrics that lack something."""
    row: dict[str, Any] = {}
    for metric in metrics:
        try:
            row |= metric.values(outputs)
        except Absent:
            continue
        except Exception as error:
            if not plugins.home("metrics", metric.columns[0]):
                raise
            # A training is worth more than a number of a user's own: `results score` makes it.
            why = f"{type(error).__name__}: {error} {plugins.place(error)}"
            print(f"no {metric.heading}: {' '.join(why.split())}", file=sys.stderr, flush=True)
    return row


def columns(metrics: Sequence[Metric]) -> dict[str, type]:
    """Returns the type of every column that the metrics fill."""
    return {name: each.kind for each in metrics for name in each.columns}


def check(metrics: Sequence[Metric], others: Collection[str], imagenet: bool = False) -> None:
    """Tries every metric on made-up outputs, so that a metric fails before a training.

    A study has points or images, so all its metrics must pass on points or all on images. Metrics
    by ImageNet's classifier are tried if `imagenet` is true.

    Raises UsageError, which names the metric, for a taken column, an error, a result that no column
    declares, and a request of what no study has.
    """
    later = () if imagenet else BY_IMAGENET
    if of_points := _failures(metrics, set(others), _points(), ()):
        of_images = _failures(metrics, set(others), _images(later), later)
        if failures := min(of_points, of_images, key=len):
            raise UsageError(failures[0])


def _failures(
    metrics: Sequence[Metric], taken: set[str], example: Outputs, later: Sequence[str]
) -> list[str]:
    """Returns what is wrong with each metric on the example, which lacks what comes `later`."""
    found = []
    for metric in metrics:
        try:
            values = metric.values(example)
            bad = [name for name, value in values.items() if value != value]
            wrong = f"{bad[0]} is nan" if bad else ""
        except Absent as absent:
            wrong = f"asks for {absent}, which this study never has"
            wrong = "" if str(absent) in later else wrong
        except Exception as error:  # a user's function may raise anything
            wrong = " ".join(f"{type(error).__name__}: {error} {plugins.place(error)}".split())
        if double := taken & set(metric.columns):
            wrong = f"fills column {min(double)}, which is another's"
        if wrong:
            found.append(f"metric {metric.heading!r}, tried on made-up samples: {wrong}")
        taken |= set(metric.columns)
    return found


def _points() -> Outputs:
    centres = np.array([[0.0, 0.0], [2.0, 2.0]])
    x = centres[np.arange(40) % 2] + np.random.default_rng(0).normal(size=(40, 2)) / 5
    known = dict.fromkeys(("samples", "x", "x_rec", "z", "z_rec"), x)
    return Outputs(**known, centres=centres, logits=x)


def asks_for(metric: Metric, names: Collection[str]) -> str:
    """Returns the first of these outputs that a metric of images asks for and can't do without.

    Tries the metric on made-up images without these outputs. Returns "" if it asks for none.
    """
    try:
        if names:
            metric.values(_images(names))
    except Absent as absent:
        return str(absent) if str(absent) in names else ""
    except Exception:  # a user's function may raise anything; it does so again where it scores
        return ""
    return ""


OTHERS = (1, 2)
"""Seeds of the suite's other classifiers, which score beside that of seed 0."""
BY_IMAGENET = ("imagenet_logits", "imagenet_features", "imagenet_real")
"""What `Outputs` has of ImageNet's classifier."""


def _images(without: Iterable[str]) -> Outputs:
    from bench.scores.swd import Patches

    rng = np.random.default_rng(0)
    x, features = rng.random((12, 3, 16, 16), np.float32), rng.random((12, 4), np.float32)
    known = dict.fromkeys(("samples", "x", "x_rec", "x_rec_batch"), x)
    ends = ("", *(f"_{seed}" for seed in OTHERS))
    names = ("logits", "features", "real_features")
    own = [f"{name}{end}" for name in names for end in ends]
    known |= dict.fromkeys((*own, *BY_IMAGENET), features)
    known |= dict.fromkeys(("patches", "real_patches"), Patches.of(x))
    real = {f"real{end}": Gaussian.of(features) for end in ends} | {"swd_real": 1.0}
    return Outputs(**{**known, **real, **dict.fromkeys(without)})


def made_up(of_images: bool) -> Outputs:
    """Returns outputs that no model made, of images or else of points, always the same."""
    return _images(()) if of_images else _points()


def high_quality(outputs: Outputs) -> float:
    """Quality is the share of samples within 3 standard deviations of a centre."""
    return float((_distance(outputs).min(1) <= NEAR).mean())


def modes(outputs: Outputs) -> int:
    """Modes is the number of Gaussians, of five, with enough samples near their centre."""
    distance = _distance(outputs)
    counts = np.bincount(distance.argmin(1)[distance.min(1) <= NEAR])
    return int((counts >= COVERED).sum())


def mode_coverage(outputs: Outputs) -> float:
    """Coverage is the overlap of the samples with the five equal Gaussians: the sum over them of
    the share of samples within 3 standard deviations of the centre, of which a fifth counts at most
    (real data .969).

    It is exact, as centres and weights of the mixture are known. Of infinitely many points of the
    mixture it is 1 - exp(-9 / 2) = .989; 1,024 points miss some fifths.
    """
    near = (np.linalg.norm(outputs.samples[:, None] - outputs.centres, axis=-1) <= NEAR).mean(0)
    return float(near.clip(max=1 / len(near)).sum())


def _distance(outputs: Outputs) -> np.ndarray:
    return np.linalg.norm(outputs.samples[:, None, :] - outputs.centres, axis=-1)


def precision(outputs: Outputs) -> tuple[float, int]:
    """Precision is the share of samples that lie in the ball of a real test image. A ball reaches
    to the fifth nearest neighbour in its own set, in the features of our classifier. Both sets have
    the same number of images, at most 10,000 (Kynkäänniemi et al. 2019, Naeem et al. 2020).

    The second number is that of the images of each set.
    """
    found = _neighbours(outputs)
    return found.precision, found.n


def recall(outputs: Outputs) -> float:
    """Recall is the share of real test images that lie in the ball of a sample."""
    return _neighbours(outputs).recall


def density(outputs: Outputs) -> float:
    """Density is a fifth of the number of real balls that a sample lies in, on average. It may
    exceed 1.
    """
    return _neighbours(outputs).density


def coverage(outputs: Outputs) -> float:
    """Coverage is the share of real balls that hold a sample."""
    return _neighbours(outputs).coverage


def _neighbours(outputs: Outputs) -> Neighbours:
    """Returns what four metrics read; it is computed once for the same outputs."""
    known = vars(outputs)
    if "neighbours" not in known:
        known["neighbours"] = compare(outputs.real_features, outputs.features)
    return known["neighbours"]


def sliced_wasserstein(outputs: Outputs) -> tuple[float, float]:
    """SWD is the sliced Wasserstein distance to real test images."""
    from bench.scores.swd import distance

    return distance(outputs.patches, outputs.real_patches), outputs.swd_real


def image_error(outputs: Outputs) -> float:
    """MSE of x is the mean squared error of reconstructed test images on [-1, 1]."""
    import torch  # torch's sum has the bits of the stored rows

    x, x_rec = torch.as_tensor(outputs.x), torch.as_tensor(outputs.x_rec)
    return 4 * float((x - x_rec).double().square().mean())


def batch_error(outputs: Outputs) -> float:
    """MSE of x, batch statistics, is the same where each batch of test images gives batch norm its
    statistics, as in the authors' code.
    """
    return image_error(Outputs(x=outputs.x, x_rec=outputs.x_rec_batch))


TOY = [
    Metric(("inception_score",), lambda o: inception_score(o.logits, 1)[0], "IS"),
    Metric(("mse_x",), lambda o: np.square(o.x - o.x_rec).mean(), "MSE"),
    Metric(("mse_z",), lambda o: np.square(o.z - o.z_rec).mean(), "MSE of z"),
    Metric(("modes",), modes, "modes", 0, int),
    Metric(("high_quality",), high_quality, "quality"),
    Metric(("mode_coverage",), mode_coverage, "coverage"),
]
"""Tables of the toy study show these metrics in this order."""

OURS = "our classifier"
"""What headings and rules call the suite's own classifier of images."""
_OWN = ("inception_score", "inception_sd")
_IMAGENET = ("inception_score_imagenet", "inception_sd_imagenet")
IMAGES = [
    Metric(_OWN, lambda o: inception_score(o.logits), f"IS ({OURS})", 2),
    Metric(("frechet",), lambda o: frechet_distance(o.features, o.real), f"Fréchet ({OURS})", 2),
    Metric(("swd", "swd_real"), sliced_wasserstein, "SWD × 1000", 1),
    Metric(("mse_x",), image_error, "MSE of x"),
    Metric(("mse_x_batch",), batch_error, "MSE of x, batch statistics"),
    Metric(("neighbour_precision", "neighbour_n"), precision, "precision", 2),
    Metric(("neighbour_recall",), recall, "recall", 2),
    Metric(("neighbour_density",), density, "density", 2),
    Metric(("neighbour_coverage",), coverage, "coverage", 2),
    Metric(_IMAGENET, lambda o: inception_score(o.imagenet_logits, seed=SEED), "IS (ImageNet)", 2),
    Metric(("fid",), lambda o: frechet_distance(o.imagenet_features, o.imagenet_real), "FID", 1),
    Metric(
        ("kid", "kid_sd"), lambda o: kernel_distance(o.imagenet_features, o.imagenet_real), "KID", 4
    ),
    Metric(
        ("inception_score_1",), lambda o: inception_score(o.logits_1)[0], "IS (classifier 1)", 2
    ),
    Metric(
        ("inception_score_2",), lambda o: inception_score(o.logits_2)[0], "IS (classifier 2)", 2
    ),
    Metric(
        ("frechet_1",),
        lambda o: frechet_distance(o.features_1, o.real_1),
        "Fréchet (classifier 1)",
        2,
    ),
    Metric(
        ("frechet_2",),
        lambda o: frechet_distance(o.features_2, o.real_2),
        "Fréchet (classifier 2)",
        2,
    ),
]
"""Tables of the image studies show these metrics in this order."""

ANCHORS = Metric(("anchors",), lambda outputs: 0.0, "anchors")
"""Stands where rows are scored again for their column `anchors`, which no model's outputs make."""
