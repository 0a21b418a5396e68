"""Identity, random streams and the grids."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from random import Random
from typing import Any

import numpy as np
import pytest

from bench.spec import columns, generator, grid
from bench.studies import STUDIES
from bench.studies.toy_grid import data
from bench.studies.toy_grid.job import stacks
from bench.studies.toy_grid.spec import ToySpec

SPEC = ToySpec(study="toy_grid", scale="quick", method="svae_r", lam=0.1)


def test_pinned_ids() -> None:
    """Changing any of these orphans every stored result: bump PROTOCOL or don't."""
    assert SPEC.id == "76619b99b5ac181d"
    assert replace(SPEC, lam=0.0, critic_steps=5).id == "05f5a6d347118010"
    assert replace(SPEC, seed=3, lr=1e-4, method="alice").id == "1e0e293a152fdbb2"


def test_two_spellings_are_one_experiment() -> None:
    one = replace(SPEC, lam=1, seed=np.int64(2), lr=np.float64(1e-3))
    assert one.id == replace(SPEC, lam=1.0, seed=2).id
    assert {type(getattr(one, name)) for name in columns(ToySpec)} == {str, int, float}


@pytest.mark.parametrize("field", sorted(set(columns(ToySpec)) - {"precision"}))
def test_every_field_is_part_of_the_identity(field: str) -> None:
    value = getattr(SPEC, field)
    more = {str: "x", int: 1, float: 0.5}[columns(ToySpec)[field]]
    other = replace(SPEC, **{field: value + more})
    assert other.id != SPEC.id
    paired = field in ("method", "lam")
    assert (other.stream == SPEC.stream) == paired
    assert (other.config == SPEC.config) == (paired or field == "seed")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("lam", -1.0),
        ("lam", float("nan")),
        ("lr", 0.0),
        ("seed", -1),
        ("precision", "half"),
        ("dropout", -0.1),
        ("dropout", 1.0),
        ("dropout", float("nan")),
    ],
)
def test_values_that_cannot_be_trained_are_refused(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"{field} is .*; allowed: "):
        replace(SPEC, **{field: value})
    with pytest.raises(ValueError, match=f"{field} is "):
        grid(
            ToySpec,
            study=["toy_grid"],
            scale=["quick"],
            method=["alice"],
            **{"lam": [0.0], field: [value]},
        )


def test_grid_equals_the_constructor() -> None:
    for spec in STUDIES["toy_grid"].specs("smoke"):
        assert spec == ToySpec(**{name: getattr(spec, name) for name in columns(ToySpec)})


def test_paper_grid() -> None:
    specs = STUDIES["toy_grid"].specs("paper")
    assert len(specs) == len({spec.id for spec in specs}) == 3456
    assert len({spec.config for spec in specs}) == 576
    assert Counter((s.method, s.lam) for s in specs) == {
        (method, lam): 576 for method in ("svae_r", "alice") for lam in (0.0, 0.01, 0.1)
    }


def test_quick_grid_is_a_balanced_fraction() -> None:
    specs = STUDIES["toy_grid"].specs("quick")
    assert len(specs) == 432
    configs = {s.config: s for s in specs}.values()
    assert len(configs) == 72
    factors = [
        f"{net}_{what}" for net in ("encoder", "decoder", "critic") for what in ("depth", "width")
    ]
    for one, two in combinations([*factors, "critic_steps", "model_steps"], 2):
        pairs = Counter((getattr(s, one), getattr(s, two)) for s in configs)
        levels = len({p[0] for p in pairs}) * len({p[1] for p in pairs})
        assert set(pairs.values()) == {72 // levels}, (one, two)


def test_a_fraction_of_the_paper_s_grid_is_balanced() -> None:
    """It is the design of quick at the paper's widths; main effects do not mix in it."""
    study = STUDIES["toy_grid"]
    specs = study.specs("paper")
    eighth, small = (study.fraction(specs, size) for size in ("1/8", "1/32"))

    def designs(specs: Sequence[Any], widths: dict[int, int]) -> set[tuple[int, ...]]:
        steps = ((s.critic_steps, s.model_steps) for s in specs)
        sizes = ((*s.depths, *(widths[each] for each in s.widths)) for s in specs)
        return {(*size, *step) for size, step in zip(sizes, steps, strict=True)}

    quick = designs(study.specs("quick"), {32: 256, 64: 512})
    assert designs(eighth, {256: 256, 512: 512}) == quick
    assert {s.id for s in small} < {s.id for s in eighth} < {s.id for s in specs}
    assert len(eighth) == 432 and len(small) == 108
    configs = list({s.config: s for s in small}.values())
    assert len(configs) == 18
    assert set(Counter((s.critic_steps, s.model_steps) for s in configs).values()) == {2}
    for name in ("encoder_depth", "decoder_depth", "critic_depth"):
        assert set(Counter(getattr(s, name) for s in configs).values()) == {9}
    for name in ("encoder_width", "decoder_width", "critic_width"):
        assert set(Counter(getattr(s, name) for s in configs).values()) == {8, 10}


def test_random_numbers_belong_to_the_configuration() -> None:
    first = next(data.epochs(SPEC))
    paired = next(data.epochs(replace(SPEC, method="alice", lam=0.0)))
    other = next(data.epochs(replace(SPEC, seed=1)))
    for name in ("x", "z", "critic_eps", "model_eps"):
        assert np.array_equal(getattr(first, name), getattr(paired, name))
        assert not np.array_equal(getattr(first, name), getattr(other, name))
    assert first.kept == ()
    weights = generator(SPEC.stream, "weights").normal(size=5)
    assert not np.array_equal(weights, generator(SPEC.stream, "noise").normal(size=5))


def test_what_dropout_keeps_belongs_to_the_configuration() -> None:
    spec = replace(SPEC, dropout=0.2, encoder_width=32, encoder_depth=3, batch=512)
    epochs = data.epochs(spec)
    first, second = next(epochs), next(epochs)
    paired = next(data.epochs(replace(spec, method="alice", lam=0.0)))
    other = next(data.epochs(replace(spec, seed=1)))
    coded, judged = 512 * (1 + 2 * 5), 2 * 512 * (1 + 5)
    sizes = [(4, 3, 32, coded), (4, 2, 256, coded), (4, 2, 256, judged)]
    for i, size in enumerate(sizes):
        kept = first.kept[i]
        assert kept.shape == size and kept.dtype == bool
        assert np.array_equal(kept, paired.kept[i])
        # Each two masks differ in 2 · 0.2 · 0.8 of the units: of epochs, seeds, batches, layers,
        # units and samples.
        ones = (second.kept[i], other.kept[i])
        ones += tuple(np.roll(kept, 1, axis) for axis in range(4))
        for one in ones:
            assert (kept != one).mean() == pytest.approx(0.32, abs=0.01)
        assert kept.mean() == pytest.approx(0.8, abs=0.003)


def test_every_epoch_is_a_fresh_shuffle_of_the_fixed_set() -> None:
    epochs = data.epochs(SPEC)
    one, two = next(epochs), next(epochs)
    assert not np.array_equal(one.x, two.x)
    for name, fixed in (("x", "x_train"), ("z", "z_train")):
        expected = np.sort(getattr(data.toy_data(SPEC.stream), fixed), axis=0)
        for epoch in (one, two):
            seen = getattr(epoch, name).swapaxes(1, 2).reshape(-1, 2)
            assert np.array_equal(np.sort(seen, axis=0), expected)


def test_the_mixture() -> None:
    x = data.mixture(50_000, np.random.default_rng(0))
    nearest = np.linalg.norm(x[:, None] - data.CENTRES, axis=-1).argmin(1)
    for k, centre in enumerate(data.CENTRES):
        points = x[nearest == k]
        assert len(points) == pytest.approx(10_000, rel=0.05)
        assert points.mean(0) == pytest.approx(centre, abs=0.02)
        assert points.std(0) == pytest.approx([0.2, 0.2], abs=0.01)


@pytest.mark.parametrize("seed", range(3))
def test_stacks_hold_every_training_once_whatever_the_order(seed: int) -> None:
    specs = STUDIES["toy_grid"].specs("quick", seeds=2)
    specs += [replace(spec, dropout=0.2) for spec in specs]
    cut = stacks(Random(seed).sample(specs, len(specs)), "cpu")
    assert sorted(s.id for stack in cut for s in stack) == sorted(s.id for s in specs)
    for stack in cut:
        assert (
            len({(s.critic_steps, s.model_steps, s.epochs, s.dropout, s.lam > 0) for s in stack})
            == 1
        )
