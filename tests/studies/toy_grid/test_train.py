"""A model trained in a stack is the model trained alone, and no member touches another."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import numpy as np
import pytest
import torch

from bench.speed.baselines.toy import PlainTrainer
from bench.studies.toy_grid.evaluate import Evaluation
from bench.studies.toy_grid.spec import ToySpec
from bench.studies.toy_grid.train import StackedAdam, Trainer
from models.objectives import OBJECTIVES

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


def plain_row(plain: PlainTrainer) -> torch.Tensor:
    """The plain loop's parameters laid out as a stacked member's."""
    parts = []
    for network in (plain.encoder, plain.decoder, plain.critic):
        for layer in network.modules():
            if isinstance(layer, torch.nn.Linear):
                parts += [layer.weight.detach().flatten(), layer.bias.detach()]
    return torch.cat(parts)


def largest_difference(specs: Sequence[ToySpec], dtype: torch.dtype, batches: int) -> float:
    """Largest parameter difference between a stack and plain loops after so many batches."""
    stack = Trainer(specs, dtype=dtype)
    source = stack.epochs()
    per_epoch = 16
    for _ in range(batches // per_epoch):
        for batch in next(source):
            stack.updates(batch)
    for batch in next(source)[: batches % per_epoch]:
        stack.updates(batch)
    rows, worst = parameters(stack), 0.0
    for spec in specs:
        plain = PlainTrainer(spec, dtype)
        for batch in islice(plain.batches(), batches):
            plain.updates(*batch)
        worst = max(worst, (rows[spec.id] - plain_row(plain)).abs().max().item())
    return worst


def test_float64_parity_with_plain_loops_over_300_steps() -> None:
    assert largest_difference(mixed(), torch.float64, batches=16 * EPOCHS) <= 1e-9


def test_float32_parity_with_plain_loops_over_10_steps() -> None:
    assert largest_difference(mixed(), torch.float32, batches=2) <= 1e-5


class TestMutations:
    """Parity must notice each of the mistakes that a stacked trainer invites."""

    def broken(self) -> float:
        return largest_difference(mixed(["svae_r", "alice"]), torch.float64, batches=16)

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


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_recorded_updates_equal_eager_ones_on_a_gpu() -> None:
    specs = mixed(epochs=2)
    replayed, eager = Trainer(specs, "cuda"), Trainer(specs, "cuda")
    replayed.train()
    source = eager.epochs()
    for _ in range(2):
        for batch in next(source):
            eager.updates(batch)
    one, other = parameters(replayed), parameters(eager)
    assert all(torch.equal(one[id], other[id]) for id in one)


def test_members_of_another_program_are_refused() -> None:
    specs = mixed(["alice"])
    other = ToySpec(study="toy_grid", scale="smoke", method="alice", lam=0.0)
    with pytest.raises(ValueError, match="must share"):
        Trainer([*specs, other])
