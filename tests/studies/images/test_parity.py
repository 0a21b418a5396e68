"""The image studies' trainer gives the numbers of a plain loop."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn.functional import conv_transpose2d

from bench.data.synthetic import digits, photos
from bench.speed.baselines.images import PlainTrainer
from bench.studies.images import train
from bench.studies.images.spec import ImageSpec
from bench.studies.images.train import Draws, Trainer
from models.layers import Deconv
from models.methods import METHODS, Networks, encode, prior
from models.mnist import ImageNetworks
from models.objectives import density_ratio
from tests.rows import OWN_METHODS

STEPS = 20
IMAGES = {
    "stand-in digits": digits()["train"][:160],  # an epoch of 10 batches: the order changes once
    "stand-in photos": photos()["train"][:160],
}


def spec(method: str = "svae_r", lam: float = 0.1, data: str = "stand-in digits") -> ImageSpec:
    return ImageSpec(
        study="mnist",
        scale="smoke",
        method=method,
        lam=lam,
        data=data,
        width=1 / 16,
        critic_steps=2,
        batch=16,
        lr=1e-3,
    )


def unfelt(network: nn.Module) -> set[nn.Parameter]:
    """Biases that a batch norm takes away again.

    Their gradient is rounding alone, which Adam divides by its 1e-8 and learns from.
    """
    norm = nn.BatchNorm1d | nn.BatchNorm2d
    pairs = pairwise(network.modules())
    biases = (getattr(layer, "bias", None) for layer, after in pairs if isinstance(after, norm))
    return {bias for bias in biases if isinstance(bias, nn.Parameter)}


def largest_difference(spec: ImageSpec) -> float:
    """Of any parameter, between the trainer and the plain loop after the same steps in float64."""
    trainer = Trainer(spec, IMAGES[spec.data], dtype=torch.float64)
    plain = PlainTrainer(spec, dtype=torch.float64)
    for step in range(STEPS):
        x = trainer.batch(step)
        # The noise that the trainer's own updates will see.
        names = [*(f"{step} critic {k}" for k in range(trainer.critic_steps)), f"{step} model"]
        *critic, model = (trainer.draws(x, name).noise for name in names)
        plain.updates(x, critic, model)
    trainer.nets.train()
    for _ in range(STEPS):
        trainer.advance()
    worst = 0.0
    for role in ("encoder", "decoder", "critic"):
        others, skip = getattr(plain, role), unfelt(trainer.nets[role])
        pairs = zip(trainer.nets[role].parameters(), others.parameters(), strict=True)
        for ours, other in pairs:
            if ours not in skip:
                worst = max(worst, (ours - other).abs().max().item())
    return worst


@pytest.mark.parametrize("lam", [0.0, 0.1])
@pytest.mark.parametrize(
    ("method", "data"),
    [
        ("svae_r", "stand-in digits"),
        ("alice", "stand-in digits"),
        ("svae_r", "stand-in photos"),
        ("alice_sigmoid", "stand-in photos"),
    ],
)
def test_float64_parity_with_a_plain_loop(method: str, data: str, lam: float) -> None:
    assert largest_difference(spec(method, lam, data)) <= 1e-9


class TestMutations:
    """Parity must notice the mistakes that such a loop invites."""

    def test_frozen_batch_norm(self, monkeypatch: pytest.MonkeyPatch) -> None:
        switch = ImageNetworks.train
        monkeypatch.setattr(ImageNetworks, "train", lambda self, mode=True: switch(self, False))
        assert largest_difference(spec()) > 1e-6

    def test_one_batch_norm_over_real_and_generated(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def critic(nets: Networks, batch: Draws) -> torch.Tensor:
            z = prior(nets, batch)
            x = torch.cat([batch.x, nets["decoder"](z)])
            f = nets["critic"](x, torch.cat([encode(nets, batch, batch.x), z]))
            return density_ratio(*f.chunk(2))

        monkeypatch.setitem(OWN_METHODS, "svae_r", replace(METHODS["svae_r"], critic=critic))
        assert largest_difference(spec()) > 1e-6

    def test_gradients_pile_up(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def descend(adam: torch.optim.Adam, loss: torch.Tensor) -> None:
            loss.backward()
            adam.step()

        monkeypatch.setattr(train, "_descend", descend)
        assert largest_difference(spec()) > 1e-6

    def test_a_turned_kernel(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def turned(self: Deconv, x: torch.Tensor) -> torch.Tensor:
            return conv_transpose2d(x, self.weight.flip(2, 3), self.bias, 2, 2, 1)

        monkeypatch.setattr(Deconv, "forward", turned)
        assert largest_difference(spec()) > 1e-6
