"""A model trained in a stack is the model trained alone, and no member touches another."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench.check.contracts.reductions import gap_in_a_stack
from bench.data.ahead import ahead
from bench.engine.job import run_job
from bench.spec import generator
from bench.speed.baselines.toy import PlainTrainer
from bench.studies.study import Job
from bench.studies.toy_grid import data, train
from bench.studies.toy_grid.evaluate import Evaluation
from bench.studies.toy_grid.spec import ToySpec
from bench.studies.toy_grid.train import StackedAdam, Trainer
from models import products
from models.objectives import OBJECTIVES
from models.precision import allow_tf32, exact

EPOCHS = 4  # of 16 batches of 2 + 3 updates: 320 steps


def mixed(methods: Sequence[str] = tuple(OBJECTIVES), epochs: int = EPOCHS) -> list[ToySpec]:
    """Different shapes, lambdas, learning rates and seeds for every method."""
    specs = []
    for i, method in enumerate(methods):
        for j, lam in enumerate((0.0, 0.1)):
            specs.append(
                ToySpec(
                    study="toy_grid",
                    scale="smoke",
                    method=method,
                    lam=lam * (1 + i),
                    encoder_width=(16, 24)[i % 2],
                    decoder_width=(16, 24)[j],
                    critic_width=(24, 16, 40)[(i + j) % 3],
                    encoder_depth=2 + j,
                    critic_depth=2 + i % 2,
                    critic_steps=2,
                    model_steps=3,
                    lr=1e-3 * (1 + i + j),
                    seed=i,
                    epochs=epochs,
                )
            )
    return specs


def parameters(trainer: Trainer) -> dict[str, torch.Tensor]:
    """All parameters of each member by id, in one row."""
    return {spec.id: trainer.parameters(i) for i, spec in enumerate(trainer.specs)}


class DroppingTrainer(PlainTrainer):
    """The plain loop with dropout: torch's ReLUs, followed by the masks of an epoch's `kept`."""

    def __init__(self, spec: ToySpec, dtype: torch.dtype) -> None:
        super().__init__(spec, dtype)
        self.masks: list[Iterator[torch.Tensor]] = []
        relus = [
            [layer for layer in network if isinstance(layer, torch.nn.ReLU)]
            for network in (self.encoder, self.decoder, self.critic)
        ]
        for role, layers in enumerate(relus):
            for depth, relu in enumerate(layers):
                relu.register_forward_hook(partial(self.drop, role, depth))

    def drop(self, role: int, depth: int, relu: object, given: object, out: torch.Tensor) -> Any:
        # A pass begins at a network's first layer.
        if depth == 0:
            self.now[role] = next(self.masks[role])
        return out * self.now[role][depth].T / (1 - self.spec.dropout)

    def batches(self) -> Iterator[tuple[torch.Tensor, ...]]:
        epochs = islice(data.epochs(self.spec), self.spec.epochs)
        kept = (masks for epoch in epochs for masks in zip(*epoch.kept, strict=True))
        for batch, masks in zip(super().batches(), kept, strict=True):
            parts = [torch.from_numpy(each).split(self.spec.batch, 2) for each in masks]
            if self.spec.lam == 0:  # nothing closes the cycle
                steps = self.spec.critic_steps
                parts[:2] = [own[:steps] + own[steps::2] for own in parts[:2]]
            self.masks, self.now = [iter(own) for own in parts], {}
            yield batch
            assert all(next(own, None) is None for own in self.masks)


def test_float64_parity_with_plain_loops_over_300_steps() -> None:
    assert gap_in_a_stack(mixed(), torch.float64, batches=16 * EPOCHS) <= 1e-9


def test_float32_parity_with_plain_loops_over_10_steps() -> None:
    assert gap_in_a_stack(mixed(), torch.float32, batches=2) <= 1e-5


def dropping(specs: Sequence[ToySpec], share: float = 0.2) -> list[ToySpec]:
    return [replace(spec, dropout=share) for spec in specs]


@pytest.mark.parametrize("cycle", [True, False])
def test_float64_parity_with_plain_loops_that_drop_units(cycle: bool) -> None:
    specs = [spec for spec in dropping(mixed()) if cycle or spec.lam == 0]
    found = gap_in_a_stack(specs, torch.float64, 16 * EPOCHS, DroppingTrainer)
    assert found <= 1e-9


class TestMutations:
    """Parity must notice each of the mistakes that a stacked trainer invites."""

    def broken(self) -> float:
        return gap_in_a_stack(mixed(["svae_r", "alice"]), torch.float64, batches=16)

    def test_unbroken(self) -> None:
        assert self.broken() <= 1e-9

    def test_one_learning_rate_for_all(self, monkeypatch: pytest.MonkeyPatch) -> None:
        init = StackedAdam.__init__
        monkeypatch.setattr(
            StackedAdam, "__init__", lambda self, group, lrs: init(self, group, [lrs[0]] * len(lrs))
        )
        assert self.broken() > 1e-6

    def test_one_lambda_for_all(self, monkeypatch: pytest.MonkeyPatch) -> None:
        init = Trainer.__init__

        def shared(self, *args, **kw) -> None:
            init(self, *args, **kw)
            self.lam[:] = self.lam.max()

        monkeypatch.setattr(Trainer, "__init__", shared)
        assert self.broken() > 1e-6

    def test_average_over_the_stack(self, monkeypatch: pytest.MonkeyPatch) -> None:
        descend = StackedAdam.descend
        monkeypatch.setattr(
            StackedAdam, "descend", lambda self, loss: descend(self, loss / len(loss))
        )
        assert self.broken() > 1e-9

    def test_one_method_for_all(self, monkeypatch: pytest.MonkeyPatch) -> None:
        init = Trainer.__init__

        def shared(self, *args, **kw) -> None:
            init(self, *args, **kw)
            self.reductions["model"] = [(OBJECTIVES["svae_r"].model, 0, len(self.specs))]

        monkeypatch.setattr(Trainer, "__init__", shared)
        assert self.broken() > 1e-6


def pool() -> list[ToySpec]:
    """48 members of a handful of shapes."""
    return [
        ToySpec(
            study="toy_grid",
            scale="smoke",
            method=method,
            lam=lam,
            encoder_width=width,
            critic_width=40,
            decoder_width=32,
            critic_steps=2,
            model_steps=3,
            lr=lr,
            seed=seed,
            epochs=3,  # 240 steps
        )
        for seed in range(2)
        for width in (32, 40)
        for lr in (1e-3, 2e-3)
        for method in ("svae_r", "alice", "alice_sigmoid")
        for lam in (0.01, 0.1)
    ]


@pytest.fixture(scope="module")
def alone_in_48() -> dict[str, tuple[torch.Tensor, str]]:
    return trained(pool())


def trained(specs: Sequence[ToySpec]) -> dict[str, tuple[torch.Tensor, str]]:
    """Parameters and every reported number of each member, after training in float32."""
    trainer = Trainer(specs)
    evaluation = Evaluation(trainer)
    trainer.train()
    rows, gradients = parameters(trainer), evaluation.decoder_gradient()
    reported = [
        f"{metrics} {[(method, sizes[i]) for method, sizes in gradients.items()]}"
        for i, (metrics, _) in enumerate(evaluation.outcomes())
    ]
    return {s.id: (rows[s.id], r) for s, r in zip(trainer.specs, reported, strict=True)}


def assert_same_bits(
    some: dict[str, tuple[torch.Tensor, str]], all_: dict[str, tuple[torch.Tensor, str]]
) -> None:
    for id, (row, reported) in some.items():
        assert torch.equal(row, all_[id][0])
        assert reported == all_[id][1]


@pytest.mark.parametrize("size", [1, 2, 7])
def test_same_bits_in_a_stack_of_any_size(size: int, alone_in_48: dict) -> None:
    assert len(alone_in_48) == 48
    assert_same_bits(trained(pool()[5 : 5 + size]), alone_in_48)


def test_same_bits_in_a_stack_of_any_size_with_dropout() -> None:
    specs = dropping(pool())
    together = trained(specs)
    for size in (1, 7):
        assert_same_bits(trained(specs[5 : 5 + size]), together)


def test_same_bits_in_any_order(alone_in_48: dict) -> None:
    order = np.random.default_rng(0).permutation(48)
    assert_same_bits(trained([pool()[i] for i in order]), alone_in_48)


def test_lambda_zero_is_the_same_with_and_without_the_cycle() -> None:
    """Beside members with lambda > 0, one at 0 is carried through the cycle with weight 0."""
    zeros = [s for s in mixed(epochs=2) if s.lam == 0]
    assert_same_bits(trained(zeros), trained(mixed(epochs=2)))


def test_a_diverged_member_changes_no_other(alone_in_48: dict) -> None:
    trainer = Trainer(pool()[:6])
    nets = trainer.nets
    for group in (nets.coders, nets.critics):
        for bank, members in zip(group.banks, group.members, strict=True):
            rows = [i for i, member in enumerate(members) if member % 6 == 2]
            with torch.no_grad():
                bank.parameters[rows] = torch.nan
    trainer.train()
    rows = parameters(trainer)
    for i, spec in enumerate(trainer.specs):
        if i == 2:
            assert not rows[spec.id].isfinite().all()
        else:
            assert torch.equal(rows[spec.id], alone_in_48[spec.id][0])
    assert trainer.finite() == [i != 2 for i in range(6)]
    outcomes = Evaluation(trainer).outcomes()
    assert [metrics is None for metrics, _ in outcomes] == [i == 2 for i in range(6)]


def test_weights_and_noise_are_drawn_once_for_members_that_share_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Methods and lambdas of a configuration share all that is random."""
    drawn: Counter[tuple[str, str]] = Counter()

    def counted(stream: str, purpose: str) -> np.random.Generator:
        drawn[stream, purpose] += 1
        return generator(stream, purpose)

    for module in (train, data):
        monkeypatch.setattr(module, "generator", counted)
    trainer = Trainer([replace(spec, method=m) for spec in mixed(epochs=2) for m in OBJECTIVES])
    next(trainer.epochs())
    streams = {spec.stream for spec in trainer.specs}
    assert len(trainer.specs) == len(OBJECTIVES) * len(streams)
    assert {stream for stream, _ in drawn} == streams and set(drawn.values()) == {1}


def test_scores_are_never_rounded_to_tf32(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training is, the decoder's gradient and the scores are not."""
    seen: dict[str, set[bool]] = {}

    def watch(kind: type, name: str) -> None:
        call = getattr(kind, name)

        def watched(*given: Any) -> Any:
            seen.setdefault(name, set()).add(bool(torch.backends.cuda.matmul.allow_tf32))
            return call(*given)

        monkeypatch.setattr(kind, name, watched)

    watch(Trainer, "updates")
    watch(Evaluation, "decoder_gradient")
    watch(Evaluation, "outcomes")
    specs = tuple(replace(spec, precision="tf32") for spec in pool()[:2])
    verdict = run_job(Job(specs, str(tmp_path), "cpu", {"commit": None, "dirty": None}))
    assert verdict.end == "done", verdict.reason
    assert seen == {"updates": {True}, "decoder_gradient": {False}, "outcomes": {False}}
    allow_tf32(False)


def test_units_are_dropped_in_every_pass_of_training_and_in_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, set[bool]] = {"updates": set(), "decoder_gradient": set(), "outcomes": set()}
    inside: list[str] = []
    forward = products.forward

    def watched(*given: Any) -> Any:
        seen[inside[-1]].add(given[-1] is not None)
        return forward(*given)

    def watch(kind: type, name: str) -> None:
        call = getattr(kind, name)

        def named(*given: Any) -> Any:
            inside.append(name)
            return call(*given)

        monkeypatch.setattr(kind, name, named)

    monkeypatch.setattr(products, "forward", watched)
    watch(Trainer, "updates")
    watch(Evaluation, "decoder_gradient")
    watch(Evaluation, "outcomes")
    specs = tuple(dropping(pool()[:2]))
    verdict = run_job(Job(specs, str(tmp_path), "cpu", {"commit": None, "dirty": None}))
    assert verdict.end == "done", verdict.reason
    assert seen == {"updates": {True}, "decoder_gradient": {False}, "outcomes": {False}}


def test_items_made_ahead_are_the_same_and_made_by_another_thread() -> None:
    def items() -> Iterator[tuple[int, int]]:
        for i in range(3):
            yield i, threading.get_ident()
        raise ArithmeticError("in its turn")

    made = ahead(items())
    numbers, threads = zip(*islice(made, 3), strict=True)
    assert numbers == (0, 1, 2)
    assert threading.get_ident() not in threads and len(set(threads)) == 1
    with pytest.raises(ArithmeticError, match="in its turn"):
        next(made)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "tf32"])
@pytest.mark.parametrize("share", [0.0, 0.2])
@pytest.mark.parametrize("cycle", [False, True])
def test_recorded_updates_equal_eager_ones_on_a_gpu(
    cycle: bool, share: float, precision: str
) -> None:
    """A stack of each kind, with every method; a GPU's epochs are drawn ahead."""
    specs = dropping([spec for spec in mixed(epochs=2) if (spec.lam > 0) is cycle], share)
    allow_tf32(precision == "tf32")
    replayed, eager = Trainer(specs, "cuda"), Trainer(specs, "cuda", record=False)
    for trainer in (replayed, eager):
        trainer.train()
    allow_tf32(False)
    assert replayed.graph and not eager.graph
    one, other = parameters(replayed), parameters(eager)
    assert all(torch.equal(one[id], other[id]) for id in one)


@pytest.mark.gpu
@pytest.mark.parametrize("share", [0.0, 0.2])
def test_a_gpu_sees_what_a_cpu_sees(share: float) -> None:
    """Later, adversarial training amplifies the rounding in which the first updates differ."""
    specs = dropping(mixed(epochs=1), share)
    trainers = [Trainer(specs, device) for device in ("cpu", "cuda")]
    (mine, theirs) = (next(trainer.epochs()) for trainer in trainers)
    for one, other in zip(mine, theirs, strict=True):
        assert all(torch.equal(a, b.cpu()) for a, b in zip(one, other, strict=True))
    for trainer, epoch in zip(trainers, (mine, theirs), strict=True):
        trainer.updates(epoch[0])
    one, other = (parameters(trainer) for trainer in trainers)
    for id in one:
        # Adam's first step is the rate times a sign, so that a gradient near 0 may turn it.
        assert (one[id] - other[id].cpu()).abs().mean() < 1e-5


@pytest.mark.gpu
def test_scores_of_the_same_weights_agree_on_a_gpu(tmp_path: Path) -> None:
    specs = mixed(epochs=2)
    cpu, gpu = Trainer(specs, "cpu"), Trainer(specs, "cuda")
    cpu.train()
    for i in range(len(specs)):
        gpu.nets.load(i, cpu.nets.weights(i))
    with exact():
        found = [Evaluation(trainer).outcomes() for trainer in (cpu, gpu)]
    for (mine, _), (theirs, _) in zip(*found, strict=True):
        assert mine is not None and theirs is not None
        assert theirs == pytest.approx(mine, rel=1e-3, abs=2e-3)


def test_members_of_another_program_are_refused() -> None:
    specs = mixed(["alice"])
    other = ToySpec(study="toy_grid", scale="smoke", method="alice", lam=0.0)
    with pytest.raises(ValueError, match="must share"):
        Trainer([*specs, other])
    with pytest.raises(ValueError, match="must share"):
        Trainer([*specs, *dropping(specs)])
