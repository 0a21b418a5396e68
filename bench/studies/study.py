"""A study lists its trainings at each scale; its hooks cut, train, store and report them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NamedTuple

from bench import plugins
from bench.cli import UsageError
from bench.spec import PROTOCOLS, S, Spec, axes_with, columns, enough, grid, protocol
from bench.store.atomic import work_of

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from bench.render.drawings import Drawing
    from bench.render.page import Page
    from bench.scores.metrics import Metric
    from bench.store.rows import Store
    from bench.store.source import Today
    from bench.studies.trained import TrainedModel

SCALES = ("smoke", "quick", "paper")
FRACTIONS = ("1/8", "1/32")
"""Sizes of balanced parts of a grid, see `Study.fraction`."""

Beat = Callable[[float], None]
"""Reports how far a job has come, from 0 to 1."""
Rows = list[dict[str, Any]]
Kept = tuple[Mapping[str, Any], Mapping[str, Any]]
"""The stored row of a training, and its kept weights: tensors by name."""


NAME = re.compile("[a-z][a-z0-9_]{0,40}")
"""What a grid may be called: the name becomes a folder."""
UNEXPLAINED = "a column of {}, which says no more about it"
NO_AXES = ("study", "scale", "method", "lam", "seed", "precision")
"""Fields that have another place in a study, or in a command."""


class Unscorable(Exception):
    """Kept weights can't be scored; the message is the reason, which is counted."""


class Needs(NamedTuple):
    """Says how many bytes a training takes at least.

    Parts of its memory go by the field that each of them grows with.
    """

    memory: Mapping[str, float] = {}
    checkpoint: float = 0.0  # on the disk, while it is under way
    weights: float = 0.0  # on the disk, if they are kept


def cut(members: Sequence[S], limit: int) -> list[list[S]]:
    """Returns the members, at least one, in as few stacks of at most `limit` as can be.

    The stacks keep their order, and differ in size by one at most.
    """
    pieces = -(-len(members) // limit)
    cuts = [len(members) * i // pieces for i in range(pieces + 1)]
    return [list(members[a:b]) for a, b in pairwise(cuts)]


def refuse_images(study: str, data: Path | None, weights: str | None) -> None:
    """Raises UsageError for images or their classifier, which a study that draws points ignores."""
    if data is not None:
        raise UsageError(f"--data is for studies of images; {study} draws its own data")
    if weights is not None:
        raise UsageError(f"--inception-weights is for colour images; {study} has none")


def _checked(kind: type[Spec], axis: str, values: Any) -> list[Any]:
    """Returns the values of an axis, tuples if it joins fields. Raises ValueError."""
    fields, kinds = axis.split(","), columns(kind)
    if unknown := [name for name in fields if name not in kinds or name in NO_AXES]:
        allowed = ", ".join(name for name in kinds if name not in NO_AXES)
        raise ValueError(f"axis {unknown[0]!r}; allowed: {allowed}")
    if isinstance(values, str) or not isinstance(values, Sequence) or not values:
        raise ValueError(f"axis {axis} is {values!r}; allowed: a list of values")
    rows = [value if len(fields) > 1 else (value,) for value in values]
    for row in rows:
        if not isinstance(row, Sequence) or isinstance(row, str) or len(row) != len(fields):
            raise ValueError(f"axis {axis} has {row!r}; allowed: lists of {len(fields)} values")
        for name, value in zip(fields, row, strict=True):
            wanted = {str: str, int: int}.get(kinds[name], int | float)
            if not isinstance(value, wanted) or isinstance(value, bool):
                of = kinds[name].__name__
                raise ValueError(f"axis {axis} has {value!r}; allowed: {name} of type {of}")
    return [*dict.fromkeys(tuple(row) if len(fields) > 1 else row[0] for row in rows)]


@dataclass(frozen=True)
class Job:
    """A job is a stack of trainings and all that a worker must know of it."""

    specs: tuple[Spec, ...]
    results: str
    device: str
    origin: dict[str, Any]  # columns that only the process that started the run knows
    parent: int | None = None  # that process's number, None if jobs run on a cluster
    run: str | None = None  # names the job's run, over all machines
    data: str | None = None  # folder or file of images, if the user named one
    inception: str | None = None  # weights of ImageNet's classifier, or "download"
    weights: str = "none"  # whose weights are kept: none, shown or all
    eager: tuple[str, ...] = ()  # methods whose updates can't be recorded as a CUDA graph
    texts: tuple[plugins.Text, ...] = field(default_factory=plugins.carried)
    grid: str | None = None  # Study.grid
    log: bool = False  # whether trainings write what can be watched, see `bench.store.log`

    @property
    def key(self) -> str:
        """Returns a name of the job that is unique in its run."""
        return f"{self.specs[0].id}-{len(self.specs)}"

    @property
    def folder(self) -> Path:
        """Returns the folder of results of the job's study and scale."""
        return Path(self.results) / self.specs[0].study / self.specs[0].scale

    @property
    def work(self) -> Path:
        """Returns the folder of what is no result: checkpoints, heartbeats, drafts."""
        return work_of(self.folder)


@dataclass(frozen=True, kw_only=True)
class Study(Generic[S]):
    """Holds the axes of one study, fixed by the scale or replaced by the user.

    A kind of study is a subclass that fills in the hooks. Hooks import torch and pandas only when
    they are called, so that listing the studies is quick.
    """

    first_score: ClassVar[str] = ""
    """The column that says first how good a run is; "" is the first score that has values."""
    apart: ClassVar[tuple[str, ...]] = ()
    """Fields at whose other values scores mean something else, so that they are not compared."""
    compares: ClassVar[bool] = False
    """Whether reports compare methods in pairs, so that they take a `baseline`."""
    names_settings: ClassVar[bool] = False
    """Whether titles of a report name settings that are not the study's own."""
    explained: ClassVar[str] = ""
    """The part of bench/store/columns.toml that says what the study's columns mean."""
    logs: ClassVar[bool] = False
    """Whether `train` writes logs if the job asks for them."""
    explored: ClassVar[Mapping[str, Sequence[str]]] = {
        "score": ("inception_score", "swd"),
        "error": ("mse_x",),
        "share": ("high_quality", "neighbour_coverage"),
    }
    """The columns that an explorer opens with: of each role the first that rows have. A role whose
    columns no row has gets another number of the rows, or stays empty."""
    name: str
    title: str
    kind: type[S]
    axes: dict[str, dict[str, Sequence[Any]]]  # scale -> axis -> values, see `bench.spec.grid`
    methods: Sequence[str]
    lams: Mapping[str, Sequence[float]]  # by scale
    seeds: Mapping[str, int] = field(default_factory=dict)  # by scale, 1 by default
    own_lams: Mapping[str, Sequence[float]] = field(default_factory=dict)  # of some methods
    cost_of_size: Mapping[int, float] = field(default_factory=dict)
    """Ratio of a member's time in a stack of this size to its time in a larger one (1)."""
    stale: bool = False  # whether results hold rows that were made by other source than today's
    baseline: str = ""  # the method, or its label, that a report compares all others with
    explored_at: str = ""  # the scale whose published report has an explorer
    base: str = ""  # the study of which this one is a grid, see `derive`
    given: Mapping[str, Any] = field(default_factory=dict)  # what `derive` was given
    stored_metrics: Sequence[Metric] = ()  # of plug-ins that are not loaded, for reports

    def derive(
        self,
        name: str,
        *,
        title: str = "",
        axes: Mapping[str, Sequence[Any]] = {},
        methods: Sequence[str] = (),
        lams: Sequence[float] = (),
        seeds: int = 0,
    ) -> Study[S]:
        """Returns a study with axes of its own, which takes all else from this study.

        The axes take the place of this study's values of their fields, at every scale. An axis is
        a field, or fields that commas join; it then has a list of values for each combination.
        Raises ValueError for a name, an axis or a value that can't be.
        """
        if not NAME.fullmatch(str(name)):
            allowed = "up to 41 small letters, digits and _, a letter first"
            raise ValueError(f"name is {name!r}; allowed: {allowed}")
        names = [name for axis in axes for name in axis.split(",")]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"axis {twice[0]!r} stands twice; allowed: each field in one axis")
        axes = {axis: _checked(self.kind, axis, values) for axis, values in axes.items()}
        if not (isinstance(seeds, int) and seeds >= 0):
            raise ValueError(f"seeds is {seeds!r}; allowed: the number of seeds")
        for what, values in (("methods", methods), ("lams", lams)):
            if isinstance(values, str) or not isinstance(values, Sequence):
                raise ValueError(f"{what} is {values!r}; allowed: a list")
        given = {"title": title, "methods": [*methods], "lams": [*lams], "seeds": seeds}
        given = {**self.given, **{key: each for key, each in given.items() if each}}
        given["axes"] = axes_with(self.given.get("axes", {}), axes)
        base = self.base or self.name
        found = replace(
            self,
            name=name,
            title=given.get("title") or f"{name}: a grid of {base}",
            base=base,
            given=given,
            axes={scale: axes_with(own, axes) for scale, own in self.axes.items()},
            methods=[*methods] or self.methods,
            lams={scale: [*map(float, lams)] for scale in self.lams} if lams else self.lams,
            seeds=dict.fromkeys(self.axes, seeds) if seeds else self.seeds,
        )
        PROTOCOLS[name] = protocol(base)  # a number of the base changes its meaning here as well
        found.specs("smoke")
        return found

    @property
    def grid(self) -> str | None:
        """Returns what `bench.studies.grids.adopt` needs, as JSON; None for a study of its own."""
        return json.dumps({"base": self.base, **self.given}) if self.base else None

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
        """Returns all trainings of this study at `scale`; None keeps the study's own values.

        `given` replaces values of other axes. A method whose `own_lams` are (0,) is trained at 0
        only. A repeated value counts once. Raises ValueError for values that can't be trained.
        """
        groups: dict[tuple[float, ...], list[str]] = {}
        for method in methods or self.methods:
            values = self.own_lams.get(method, self.lams[scale])
            if lams is not None and tuple(values) != (0.0,):
                values = lams
            groups.setdefault(tuple(dict.fromkeys(values)), []).append(method)
        first = {"study": [self.name], "scale": [scale]}
        replaced = {**({"lr": [*dict.fromkeys(lrs)]} if lrs else {}), **(given or {})}
        last = {"seed": self.seeds_at(scale, seeds), "precision": [precision]}
        last = {field: each for field, each in last.items() if field not in replaced}
        axes = first | axes_with(self.axes[scale], replaced) | last
        specs = (
            spec
            for values, names in groups.items()
            for spec in grid(self.kind, **axes, lam=values, method=names)
        )
        return list(dict.fromkeys(specs))  # values of two spellings may give equal specs

    def fraction(self, specs: Sequence[S], size: str) -> list[S]:
        """Returns a balanced part of a grid, of a `size` such as "1/8".

        Raises UsageError for a study that has none.
        """
        raise UsageError(f"--fraction {size}: {self.name} has no grid; allowed: toy_grid")

    def about(self, spec: S) -> dict[str, Any]:
        """Returns a training's id, its label and all fields of its spec."""
        fields = {name: getattr(spec, name) for name in columns(type(spec))}
        return {"id": spec.id, "label": self.label(spec.method, spec.lam), **fields}

    def first_of(self, scale: str, field: str) -> Any:
        """Returns the first value of a field at this scale, its default if no axis has it."""
        for axis, values in self.axes[scale].items():
            if field in (names := axis.split(",")):
                return values[0][names.index(field)] if len(names) > 1 else values[0]
        return getattr(self.kind, field)

    def seeds_at(self, scale: str, asked: int | None) -> range:
        """Returns the seeds from 0 on, as many as asked or as the scale has.

        Raises ValueError for more than a command can hold.
        """
        number = asked or self.seeds.get(scale, 1)
        enough(number)
        return range(number)

    def spec_of(self, row: Mapping[str, Any]) -> S | None:
        """Returns the spec of a stored row, or None if today's code would give it another id."""
        with suppress(TypeError, ValueError):
            spec = self.kind(**{name: row[name] for name in columns(self.kind)})
            return spec if spec.id == row["id"] else None
        return None

    # Results

    def store(self, results: Path, scale: str) -> Store:
        """Returns the store of this study's results at a scale, own or published."""
        from bench.scores.metrics import columns
        from bench.store import schema
        from bench.store.rows import Store

        own = {**columns(self.metrics()), **self.columns()}
        theirs = [each for each in self.metrics() if plugins.home("metrics", each.columns[0])]
        told = {each.columns[0]: each.as_json() for each in theirs}
        rows = schema.rows(self.kind, own, told, self.explanations())
        samples = schema.samples(self.sample_columns(), self.sample_explanations())
        return Store(results, self.name, scale, rows, samples, None if self.stale else self.today())

    def today(self) -> Today:
        """Returns the digests of today's source of this study's methods and metrics."""
        from bench.store.source import Today, digest, digest_of

        def method(name: str) -> str:
            places = self.method_source(name)
            return digest(*places) if places else digest_of(type(self).train)

        metrics = {
            each.columns[0]: digest_of(each.function)
            for each in self.metrics()
            if each not in self.stored_metrics
        }
        for name, places in self.score_source().items():
            metrics[name] = digest(*places) + metrics.get(name, "")
        return Today(self.name, method, metrics, self._there)

    def _there(self, method: str) -> bool:
        """Says whether there is source of a method: in the suite or in a plug-in that is loaded."""
        from bench.store.source import there

        entries = [place for place in self.method_source(method) if place.endswith("]")]
        known = not entries or any(map(there, entries))
        return known or bool(plugins.home("methods", method))

    def explanations(self) -> dict[str, str]:
        """Returns a line on each column of rows: what it says, its unit or range, what is better.

        A metric's line begins with the first paragraph of its function's docstring.
        """
        from bench.store.schema import explanations

        found = {**explanations("every"), **self.meanings()}
        for metric in self.metrics():
            first, *others = metric.columns
            if said := [line for line in (metric.explanation, found.get(first, "")) if line]:
                found[first] = "; ".join([*(line.rstrip(".") for line in said[:-1]), said[-1]])
            for name in others:
                found.setdefault(name, f"see {first}, which is of the same metric")
        names = [*self.taken(), *(name for each in self.metrics() for name in each.columns)]
        return {name: found.get(name, UNEXPLAINED.format(self.name)) for name in names}

    def sample_explanations(self) -> dict[str, str]:
        """Returns a line on each column of samples."""
        found = {"id": "the training, as in the rows", **self.sample_meanings()}
        names = ("id", *self.sample_columns())
        return {name: found.get(name, UNEXPLAINED.format(self.name)) for name in names}

    def load(self, results: Path, scale: str) -> tuple[pa.Table, dict[Path, str]]:
        """Returns the rows of today's protocol and source, and the unreadable files.

        Rows of other source are among them if the study is `stale`; see `Store.load`.
        """
        return self.store(results, scale).load()

    # Hooks

    def every_method(self) -> dict[str, bool]:
        """Returns every method that this study can train, and whether the method uses lambda."""
        raise NotImplementedError

    def label(self, method: str, lam: float) -> str:
        """Returns a method's name in tables at this lambda."""
        from models.methods import label

        return label(method, lam)

    def method_source(self, method: str) -> Sequence[str]:
        """Returns where the source of a method lies, see `bench.store.source.digest`.

        By default it is that of this study's hook `train`.
        """
        from bench.store.source import there

        place = f"{type(self).__module__}:{type(self).__name__}.train"
        with suppress(ValueError):  # its module has no file
            return [place] if there(place) else []
        return []

    def score_source(self) -> Mapping[str, Sequence[str]]:
        """Returns where source lies that makes a column beside a metric's function, if any does."""
        return {}

    def metrics(self) -> Sequence[Metric]:
        """Returns the metrics of this study, which declare their own columns."""
        return ()

    def columns(self) -> dict[str, Any]:
        """Returns this study's own columns, with types of `bench.store.schema`."""
        raise NotImplementedError

    def taken(self) -> list[str]:
        """Returns the columns of rows that no metric may fill."""
        from bench.store.schema import IDENTITY, PROVENANCE

        return [*IDENTITY, *columns(self.kind), *self.columns(), *PROVENANCE]

    def meanings(self) -> Mapping[str, str]:
        """Returns a line on each of this study's own columns and fields.

        It says what the column is, its unit or range, and ends with "higher is better" or "lower is
        better" where one is so.
        """
        from bench.store.schema import explanations

        return explanations(self.explained) if self.explained else {}

    def sample_columns(self) -> dict[str, Any]:
        """Returns columns of what is kept of a training for figures, beside its id."""
        return {}

    def sample_meanings(self) -> Mapping[str, str]:
        """Returns a line on each of these columns."""
        from bench.store.schema import explanations

        return explanations(f"{self.explained}_samples") if self.explained else {}

    def arrays(self, sample: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Returns what is kept of a training, by name, as arrays that can be drawn."""
        import numpy as np

        kept = {name: sample[name] for name in self.sample_columns()}
        return {name: np.asarray(each) for name, each in kept.items() if each is not None}

    def shows(self, row: Mapping[str, Any]) -> bool:
        """Says whether the samples of a stored row may stand in an explorer."""
        return True

    def drawings(
        self, row: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
    ) -> Sequence[Drawing]:
        """Returns what can be drawn of a training: curves of its row, and what is kept of it.

        Nested columns of the row are lists, and dicts by name; `arrays` are those of `arrays`.
        """
        from bench.render.drawings import of_arrays, of_row

        return [*of_row(row), *of_arrays(arrays)]

    def check(
        self,
        specs: Sequence[S],
        data: Path | None,
        weights: str | None,
        given: Collection[str] = (),
        fetch: bool = True,
    ) -> Sequence[S]:
        """Returns the specs as they will be trained. Raises UsageError before any training.

        `given` are the fields whose values are the user's, so that nothing else may change them.
        Without `fetch` nothing is downloaded, and what is not here is not looked at.
        """
        return specs

    def needs(self, spec: S) -> Needs:
        """Returns the bytes that a training takes at least; what is little may be left out."""
        return Needs()

    def stacks(self, specs: Sequence[S], device: str) -> list[list[S]]:
        """Returns stacks of trainings, one for each job; by default a stack is one training."""
        return [[spec] for spec in specs]

    def seconds(self, spec: S, rate: float) -> float:
        """Estimates a training's share of its job's time, for products at `rate` FLOP/s."""
        raise NotImplementedError

    def estimate(self, stacks: Sequence[Sequence[S]], device: str) -> list[float]:
        """Returns the seconds that each stack takes a process that has a core to itself.

        By default these are the `seconds` at the rate of matrix products here.
        """
        from bench.studies import cost

        rate = cost.matmul_rate(device)
        return [sum(self.seconds(spec, rate) for spec in stack) for stack in stacks]

    def train(self, job: Job, beat: Beat) -> tuple[Rows, Rows]:
        """Trains and scores a stack; returns rows of the study's own columns, and samples.

        A row may also hold "weights", tensors by name, which are kept beside the rows.
        """
        raise NotImplementedError

    def absent(self, spec: S, imagenet: bool) -> Collection[str]:
        """Returns names of `Outputs` that this training's model never has.

        `imagenet` says whether there are weights of ImageNet's classifier.
        """
        return ()

    def score(self, job: Job, kept: Sequence[Kept], wanted: Sequence[Metric]) -> Rows:
        """Scores kept weights of a stack; returns the columns of these metrics of each training.

        Columns of settings that go with the metrics are returned as well. Raises Unscorable.
        """
        raise NotImplementedError

    def model(self) -> type[TrainedModel]:
        """Returns the class of this study's trained models; a study without weights has none."""
        raise NotImplementedError

    def clear(self, job: Job) -> None:
        """Removes the files that a job has left, once its results are stored."""

    def report(self, scale: str, results: Path, other: Path | None = None) -> Page:
        """Returns the page of the stored results, perhaps compared with the results in `other`.

        A study that `compares` its methods compares them with its `baseline` if it has one, and
        else as the paper does. Raises UsageError if there is nothing in `other` to compare with, or
        no run of the baseline.
        """
        raise NotImplementedError
