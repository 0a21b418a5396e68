"""A study: its trainings at each scale, and hooks that cut, train, store and report them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic

from bench.spec import S, Spec, grid

if TYPE_CHECKING:
    import pyarrow as pa

    from bench.render.page import Page
    from bench.scores.metrics import Metric
    from bench.store.rows import Store

SCALES = ("smoke", "quick", "paper")

Beat = Callable[[float], None]
"""Tells how far a job has come, from 0 to 1."""
Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Job:
    """A stack of trainings and where its results go: what travels to a worker."""

    specs: tuple[Spec, ...]
    results: str
    device: str
    origin: dict[str, Any]  # columns known to the process that started the run
    parent: int | None = None  # the process that started the run, where it is on this machine
    run: str | None = None  # names the run it belongs to, over all machines
    data: str | None = None  # folder of image files, if the user named one
    inception: str | None = None  # weights of ImageNet's classifier, or "download"

    @property
    def key(self) -> str:
        """Names the job among those of its run."""
        return f"{self.specs[0].id}-{len(self.specs)}"

    @property
    def folder(self) -> Path:
        """The results of its study at its scale."""
        return Path(self.results) / self.specs[0].study / self.specs[0].scale


@dataclass(frozen=True, kw_only=True)
class Study(Generic[S]):
    """The axes of one study: those that the scale fixes and those that a user may replace.

    A kind of study is a subclass that fills in the hooks. They import what is heavy when they are
    called, so that listing the studies imports neither torch nor pandas.
    """

    name: str
    title: str
    kind: type[S]
    axes: dict[str, dict[str, Sequence[Any]]]  # scale -> axis -> values, see `bench.spec.grid`
    methods: Sequence[str]
    lams: Mapping[str, Sequence[float]]  # by scale
    seeds: Mapping[str, int] = field(default_factory=dict)  # by scale, 1 where not given
    own_lams: Mapping[str, Sequence[float]] = field(default_factory=dict)  # of some methods
    cost_of_size: Mapping[int, float] = field(default_factory=dict)
    """A member's time in a stack of this size to its time in a larger one; 1 where not given."""

    def specs(
        self,
        scale: str,
        methods: Sequence[str] | None = None,
        lams: Sequence[float] | None = None,
        lrs: Sequence[float] | None = None,
        seeds: int | None = None,
        precision: str = "float32",
        given: Mapping[str, Sequence[Any]] | None = None,
    ) -> list[S]:
        """All trainings of this study at `scale`; None keeps the study's own values.

        `given` replaces values of other axes. A method of `own_lams` (0,) is trained at 0 only.
        A value given twice counts once. Raises ValueError for values that can't be trained.
        """
        groups: dict[tuple[float, ...], list[str]] = {}
        for method in methods or self.methods:
            values = self.own_lams.get(method, self.lams[scale])
            if lams is not None and tuple(values) != (0.0,):
                values = lams
            groups.setdefault(tuple(dict.fromkeys(values)), []).append(method)
        axes = {"study": [self.name], "scale": [scale], **self.axes[scale]}
        if lrs:
            axes["lr"] = list(dict.fromkeys(lrs))
        axes |= given or {}
        axes |= {"seed": range(seeds or self.seeds.get(scale, 1)), "precision": [precision]}
        return [
            spec
            for values, names in groups.items()
            for spec in grid(self.kind, **axes, lam=values, method=names)
        ]

    # Results

    def store(self, results: Path, scale: str) -> Store:
        """The results of this study at a scale below a results folder, ours or published ones."""
        from bench.scores.metrics import columns
        from bench.store import schema
        from bench.store.rows import Store

        rows = schema.rows(self.kind, {**columns(self.metrics()), **self.columns()})
        return Store(results, self.name, scale, rows, schema.samples(self.sample_columns()))

    def load(self, results: Path, scale: str) -> tuple[pa.Table, dict[Path, str]]:
        """All rows of today's protocol, and the files that can't be read; see `Store.load`."""
        return self.store(results, scale).load()

    # Hooks

    def every_method(self) -> dict[str, bool]:
        """Every method this study can train, and whether lambda means something to it."""
        raise NotImplementedError

    def metrics(self) -> Sequence[Metric]:
        """The metrics of this study, whose columns come with them."""
        return ()

    def columns(self) -> dict[str, Any]:
        """Other columns than those of every study, with types of `bench.store.schema`."""
        raise NotImplementedError

    def sample_columns(self) -> dict[str, Any]:
        """Columns of what is kept of a training for pictures, beside its id; by default none."""
        return {}

    def check(self, specs: Sequence[S], data: Path | None, weights: str | None) -> Sequence[S]:
        """The specs as they are trained. Raises UsageError, before anything is trained."""
        return specs

    def stacks(self, specs: Sequence[S], device: str) -> list[list[S]]:
        """The trainings, cut into what one job trains together; by default each is a job."""
        return [[spec] for spec in specs]

    def seconds(self, spec: S, rate: float) -> float:
        """A training's estimated share of its job, where products run at `rate` FLOP/s."""
        raise NotImplementedError

    def train(self, job: Job, beat: Beat) -> tuple[Rows, Rows]:
        """Rows (what only this study knows of them) and samples of a trained and scored stack."""
        raise NotImplementedError

    def clear(self, job: Job) -> None:
        """Removes what a job whose results are stored has left; by default it leaves nothing."""

    def report(self, scale: str, results: Path, other: Path | None = None) -> Page:
        """The page of what is stored; `other` are results to compare with.

        Raises UsageError if there is nothing in `other` to compare with.
        """
        raise NotImplementedError
