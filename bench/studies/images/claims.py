"""The rules of all claims about images: gates, retention, comparisons. Imports no torch.

Each rule reads intervals over seeds by Student's t. They cover together at 95 %: `tests` is the
number of intervals that share the level. Scores that are compared with each other share one spread
over seeds, as three seeds of one method know theirs badly.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import pandas as pd

from bench.render import front
from bench.render.claims import FIXED, NO_DATA, UNTESTED, VERDICTS, Claim, claim, decide
from bench.render.compare import LEVEL, Spread
from bench.render.front import Equal
from bench.render.intervals import Estimate, critical, student
from bench.render.text import texts
from bench.scores.metrics import OURS
from bench.studies.images.runs import SWEPT, diverged, gone, judged, swept

TEXT = texts("bench.studies.images")
WORDS = TEXT["claims"]
HIGH = 10.0
"""The lambda at which generation is compared with that at 0."""
RETAINED = 0.75
"""A method that keeps generating retains so much of what it has above noise."""
RATIO = 0.9, 1.1
"""Inception scores in such a ratio are comparable."""
SEEDS = 3
"""Fewer decide nothing."""
TARGETS = {"half": 0.5, "a quarter": 0.25}
"""Errors at which methods are compared, as parts of the mean image's."""
NOISE, MEAN = "phase-randomised", "mean image"
"""Anchors: images as good as noise, and the reconstruction that knows nothing of an image."""
RIVALS = ("alice", "alice_sigmoid")
ERROR = "mse_x"
"""The column of the error of reconstructions."""
NAMES = {"svae_r": "sVAE-r", "alice": "ALICE", "alice_sigmoid": "ALICE-sigmoid"}
AT_ZERO = {"svae_r": "sVAE", "alice": "ALI", "alice_sigmoid": "ALI-sigmoid"}
"""Labels of methods above and at lambda 0."""
LOST = "no run has anchors, which `python -m bench.results score` adds"

Outcome = tuple[str, str]
"""A verdict and its evidence."""


@dataclass(frozen=True)
class Score:
    """A score of generation: its column, its name, and what phase-randomised images have."""

    column: str
    name: str
    noise: float  # NaN if nobody has stored it
    sign: int  # 1 where more is better, -1 where less is

    def of(self, runs: pd.DataFrame) -> pd.Series:
        """The scores by seed. A diverged run has an inception score of 1 and noise's distance."""
        values = runs.set_index("seed")[self.column].astype(float)
        return values.mask(gone(runs).to_numpy(), 1.0 if self.sign > 0 else self.noise).dropna()


def anchors(frame: pd.DataFrame) -> dict[str, float]:
    """What images score that no model made, by "KIND: COLUMN"; empty where nothing is stored."""
    stored = frame["anchors"].dropna() if "anchors" in frame else ()
    return dict(next(iter(stored), ()))


def anchor(frame: pd.DataFrame, kind: str, column: str) -> float:
    """What images of this kind score, NaN where it is not stored."""
    return anchors(frame).get(f"{kind}: {column}", math.nan)


def inception(frame: pd.DataFrame) -> tuple[pd.DataFrame, Score, str]:
    """The runs with the inception score that claims read, that score, and whose it is."""
    scored, judge = judged(frame)
    column = "inception_score" if judge == OURS else "inception_score_imagenet"
    noise = anchor(frame, NOISE, column)
    return scored, Score("inception_score", f"inception score of {judge}", noise, 1), judge


def distance(frame: pd.DataFrame) -> Score:
    """The sliced Wasserstein distance."""
    return Score("swd", "sliced Wasserstein distance", anchor(frame, NOISE, "swd"), -1)


def at(frame: pd.DataFrame, method: str, lam: float) -> pd.DataFrame:
    """The runs of a method at a lambda."""
    return frame[(frame["method"] == method) & (frame["lam"] == lam)]


# Gates


def generation(runs: Mapping[str, pd.DataFrame], score: Score) -> Outcome | None:
    """Why models do not generate well enough to carry a claim, None where they do.

    The score of each of these `runs`, by label, has to beat that of phase-randomised images: its
    lower 95 % bound by Student's t over its seeds.
    """
    values = {label: score.of(each) for label, each in runs.items()}
    counts = {label: len(found) for label, found in values.items()}
    if not all(counts.values()):
        return insufficient(counts)
    if math.isnan(score.noise):
        return NO_DATA, LOST
    weak = {}
    for label, found in values.items():
        if len(found) < SEEDS:
            continue
        error = critical(2 * LEVEL, len(found) - 1) * float(found.std()) / math.sqrt(len(found))
        bound = float(found.mean()) - score.sign * error
        if score.sign * (bound - score.noise) <= 0:
            weak[label] = f"{label} {found.mean():.2f} (bound {bound:.2f})"
    if weak:
        evidence = f"{score.name} at λ = 0: {', '.join(weak.values())}"
        return UNTESTED, f"{evidence}; phase-randomised images {score.noise:.2f}"
    return insufficient(counts)


def insufficient(counts: Mapping[str, int]) -> Outcome | None:
    """What is said where something has no values, or too few seeds; `counts` are by label."""
    if none := [label for label, n in counts.items() if not n]:
        return NO_DATA, f"not measured: {', '.join(none)}"
    less = ", ".join(f"{label} {n}" for label, n in counts.items() if n < SEEDS)
    return (VERDICTS[0], f"{SEEDS} seeds are needed: {less}") if less else None


def reconstruction(runs: Mapping[str, pd.DataFrame], error: float) -> Outcome | None:
    """Why models do not reconstruct well enough to carry a claim, None where they do.

    The mean MSE of each of these `runs`, by label, has to be at most half the mean image's `error`.
    A diverged run has an infinite MSE.
    """
    if math.isnan(error):
        return NO_DATA, LOST
    means = {label: float(errors(each).mean()) for label, each in runs.items()}
    weak = [f"{label} {mse:.3f}" for label, mse in means.items() if not mse <= error / 2]
    if weak:
        half = f"half that of the mean image {error / 2:.3f}"
        return UNTESTED, f"MSE at λ = {HIGH:g}: {', '.join(weak)}; {half}"
    return insufficient({label: len(each) for label, each in runs.items()})


def errors(runs: pd.DataFrame) -> pd.Series:
    """The MSE of reconstructions by seed, infinite for a diverged run."""
    values = runs.set_index("seed")[ERROR].astype(float)
    return values.mask(gone(runs).to_numpy(), math.inf)


# Rules


def _interval(value: float, seeds: Spread | None, tests: int, *n: int) -> Estimate:
    """A mean over seeds, or a difference of two, with the pooled spread of the seeds."""
    error = seeds.tolerance(tests, *n) if seeds else math.inf
    return Estimate(value, value - error, value + error)


def retained(runs: pd.DataFrame, score: Score) -> pd.Series:
    """By seed, what a method at `HIGH` keeps of what it has above noise at lambda 0."""
    low, high = (score.of(runs[runs["lam"] == lam]) for lam in (0.0, HIGH))
    return ((high - score.noise) / (low - score.noise)).dropna()


def retention(frame: pd.DataFrame, id: str, rival: str, score: Score, tests: int) -> Claim:
    """Whether sVAE-r keeps generating as lambda grows and the rival does not."""
    both = "svae_r", rival
    at_zero = {AT_ZERO[method]: at(frame, method, 0.0) for method in both}
    outcome = generation(at_zero, score) or _retention(frame, rival, score, tests)
    values = {"high": HIGH, "name": score.name, "rival": NAMES[rival], "retained": RETAINED}
    cells = [*product(both, (0.0, HIGH))]
    return claim(WORDS["retention"], id, outcome, cells, **values)


def rules(tests: int, asked: int = 0) -> str:
    """How intervals are made: so many of the paper's claims, so many of our questions."""
    ours = TEXT["asked"].format(n=asked) if asked else ""
    return TEXT["rules"].format(tests=tests, asked=ours, fixed=FIXED)


def questions(scores: int) -> int:
    """The number of intervals of our questions, by so many scores."""
    return len(RIVALS) * len(TARGETS) * scores


def _retention(frame: pd.DataFrame, rival: str, score: Score, tests: int) -> Outcome:
    both = "svae_r", rival
    kept = {name: retained(frame[frame["method"] == name], score) for name in both}
    if not all(map(len, kept.values())):
        return NO_DATA, f"no scores of both at λ = 0 and {HIGH:g}"
    if lacking := insufficient({NAMES[name]: len(each) for name, each in kept.items()}):
        return lacking
    seeds = Spread.pooled(kept.values())
    ours, theirs = (
        _interval(float(kept[name].mean()), seeds, tests, len(kept[name])) for name in both
    )
    holds = ours.low >= RETAINED >= theirs.high
    fails = ours.high < RETAINED or theirs.low > RETAINED
    evidence = f"R of sVAE-r {ours:+.2f}, of {NAMES[rival]} {theirs:+.2f}"
    evidence += _lost(frame, both, (0.0, HIGH))
    return VERDICTS[int(holds) - int(fails)], evidence


def reconstruct(frame: pd.DataFrame, id: str, methods: Sequence[str], tests: int) -> Claim:
    """Whether every method's error falls as lambda grows."""
    ends = {NAMES[method]: at(frame, method, HIGH) for method in methods}
    outcome = NO_DATA, f"no errors of all at λ = 0 and {HIGH:g}"
    falls = {method: _fall(frame[frame["method"] == method]) for method in methods}
    if all(map(len, falls.values())):
        gate = reconstruction(ends, anchor(frame, MEAN, ERROR))
        outcome = gate or _reconstruct(frame, falls, tests)
    cells = [*product(methods, (0.0, HIGH))]
    values = {"high": HIGH, "methods": ", ".join(NAMES[method] for method in methods)}
    return claim(WORDS["reconstruct"], id, outcome, cells, **values)


def _fall(runs: pd.DataFrame) -> pd.Series:
    """By seed, the logarithm of the MSE at lambda 0 over that at `HIGH`."""
    before, after = (errors(runs[runs["lam"] == lam]) for lam in (0.0, HIGH))
    ratios = (before / after).dropna()
    logarithms = [math.log(x) if x > 0 else -math.inf for x in ratios.to_list()]
    return pd.Series(logarithms, ratios.index, float)


def _reconstruct(frame: pd.DataFrame, falls: Mapping[str, pd.Series], tests: int) -> Outcome:
    seeds = Spread.pooled(falls.values())
    found = {
        method: _interval(float(fall.mean()), seeds, tests, len(fall))
        for method, fall in falls.items()
    }
    each = (f"{NAMES[method]} {_ratio(fall)}" for method, fall in found.items())
    evidence = f"MSE at λ = 0 / at {HIGH:g}: {', '.join(each)}"
    return _verdict(found.values()), evidence + _lost(frame, tuple(falls), (0.0, HIGH))


def _verdict(found: Iterable[Estimate]) -> str:
    """The verdict where all gains have to lie above 0, and none may lie below."""
    lows, highs = zip(*((each.low, each.high) for each in found), strict=True)
    return decide(min(lows), min(highs))


def _ratio(logarithm: Estimate) -> str:
    """The ratio of an interval of logarithms."""
    ends = (logarithm.value, logarithm.low, logarithm.high)
    return f"{Estimate(*(math.exp(x) if x < 700 else math.inf for x in ends)):.2f}"


def better(
    mine: tuple[str, pd.DataFrame],
    rivals: Mapping[str, pd.DataFrame],
    score: Score,
    seeds: Spread | None,
    tests: int,
) -> Outcome:
    """Whether the mean score is above that of every rival; each has its label."""
    label, ours = mine[0], score.of(mine[1])
    others, found = {rival: score.of(runs) for rival, runs in rivals.items()}, {}
    counts = {name: len(each) for name, each in {label: ours, **others}.items()}
    if lacking := insufficient(counts):
        return lacking
    for rival, theirs in others.items():
        gain = score.sign * (float(ours.mean()) - float(theirs.mean()))
        found[rival] = theirs, _interval(gain, seeds, tests, len(ours), len(theirs))
    verdict = _verdict(gain for _, gain in found.values())
    each = (f"{rival} {t.mean():.2f}: {g:+.2f}" for rival, (t, g) in found.items())
    ends = f"{len(ours)} and {', '.join(str(len(t)) for t, _ in found.values())} seed(s)"
    return verdict, f"{ours.mean():.2f} against {'; '.join(each)}; from {ends}"


def comparable(ours: pd.Series, theirs: pd.Series, seeds: Spread | None, tests: int) -> Outcome:
    """Whether the ratio of two scores lies within RATIO; `seeds` is the spread of logarithms."""
    gain = float(ours.map(math.log).mean() - theirs.map(math.log).mean())
    ratio = _interval(gain, seeds, tests, len(ours), len(theirs))
    low, high = map(math.log, RATIO)
    inside, outside = low <= ratio.low and ratio.high <= high, ratio.low > high or ratio.high < low
    evidence = f"{ours.mean():.2f} against {theirs.mean():.2f}: ratio {_ratio(ratio)} from "
    evidence += f"{len(ours)} and {len(theirs)} seed(s)"
    return VERDICTS[int(inside) - int(outside)], evidence


def targets(frame: pd.DataFrame) -> dict[str, float]:
    """The errors at which methods are compared, by name; none without the mean image's."""
    error = anchor(frame, MEAN, ERROR)
    return {} if math.isnan(error) else {name: part * error for name, part in TARGETS.items()}


def equals(frame: pd.DataFrame, scores: Sequence[Score], baseline: str = "") -> list[Equal]:
    """What sVAE-r and each rival score at equal errors, see `bench.render.front.equals`.

    With a `baseline` all methods of figures over lambda stand against that one instead.

    A path has those lambdas at which its method has all of its seeds, so that paths of seeds are
    interpolated alike.
    """
    runs = swept(frame) if baseline else frame[frame["method"].isin(SWEPT)]
    headings = {s.column: s.name for s in scores}
    every = runs.groupby("method")["seed"].transform("nunique")
    runs = runs[runs.groupby(["method", "lam"])["seed"].transform("nunique") == every]
    return front.equals(runs, headings, ERROR, targets(frame), baseline)


def level(frame: pd.DataFrame, id: str, rival: str, score: Score, scores: int) -> Claim:
    """Our question: whether sVAE-r generates better than the rival at equal reconstruction.

    The study asks it by so many `scores`.
    """
    at_zero = {AT_ZERO[method]: at(frame, method, 0.0) for method in ("svae_r", rival)}
    outcome = generation(at_zero, score) or _level(frame, rival, score, scores)
    values = {"rival": NAMES[rival], "name": score.name}
    cells = [(m, lam) for m in ("svae_r", rival) for lam in sorted({*frame["lam"]})]
    return claim(WORDS["level"], id, outcome, cells, **values)


def _level(frame: pd.DataFrame, rival: str, score: Score, scores: int) -> Outcome:
    if not targets(frame):
        return NO_DATA, LOST
    parts, sizes, gains = [], [], []
    for each in (one for one in equals(frame, [score]) if one.rival == rival):
        sizes.append(len(each.pairs))
        if not sizes[-1]:
            parts.append(f"at {each.goal} not reached by both")
            continue
        gains.append(student(score.sign * each.differences.to_numpy(), questions(scores)))
        parts.append(f"gain at {each.goal} {gains[-1]:+.2f} from {sizes[-1]} seed(s)")
    evidence = "; ".join(parts) or "no paths over λ"
    if not gains:
        return UNTESTED, evidence
    return VERDICTS[0] if min(sizes) < SEEDS else _verdict(gains), evidence


def _lost(frame: pd.DataFrame, methods: Sequence[str], lams: Sequence[float]) -> str:
    """How many runs of these methods and lambdas diverged, if any did."""
    runs = frame[frame["lam"].isin(lams)]
    counts = {name: diverged(runs[runs["method"] == name]) for name in methods}
    return "".join(f"; {n} of {NAMES[name]} diverged" for name, n in counts.items() if n)


def pooled(groups: Iterable[pd.Series], logarithms: bool = False) -> Spread | None:
    """The spread over seeds of scores, or of their logarithms, pooled over all these methods."""
    return Spread.pooled(each.map(math.log) if logarithms else each for each in groups)
