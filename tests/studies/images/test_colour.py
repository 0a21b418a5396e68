"""CIFAR-10 and CelebA: networks of the authors' code, and what is made of their results."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from bench import run
from bench.data import load as data
from bench.scores.metrics import IMAGES
from bench.studies import STUDIES
from bench.studies.images import evaluate
from bench.studies.images.cost import training_seconds
from bench.studies.images.domain import domain as domain_of
from bench.studies.images.train import Draws, Trainer
from models.colour import Block
from models.layers import Conv, Deconv, Linear, View
from models.methods import METHODS, encode
from tests.scores.test_classifiers import stand_in


@pytest.mark.parametrize(("name", "size"), [("cifar10", 32), ("celeba", 64)])
def test_networks_have_the_shapes_and_ranges_of_the_authors_code(name: str, size: int) -> None:
    domain = domain_of(name)
    nets = domain.networks(METHODS["svae_r"], 1 / 32, lambda role: 0)
    d = {32: 256, 64: 64}[size]
    x, z = torch.rand(4, 3, size, size) * 2 - 1, torch.rand(4, d) * 2 - 1
    eps, noise = torch.rand(4, 1, size, size), torch.rand(4, 20)
    code, image = nets["encoder"](x, eps), nets["decoder"](z, noise)
    assert code.shape == (4, d) and image.shape == x.shape
    assert code.abs().max() <= 1 and image.abs().max() <= 1
    assert nets["critic"](x, z, eps, noise).shape == (4,)
    full = domain.networks(METHODS["svae_r"], 1.0, lambda role: 0)
    shapes = [tuple(p.shape) for p in full["decoder"].parameters() if p.dim() == 4]
    assert [s[0] for s in shapes] == ([512, 256, 128] if size == 32 else [512, 256, 128, 64])


@pytest.mark.parametrize("study", ["cifar10", "celeba"])
def test_the_papers_networks_train(study: str) -> None:
    spec = STUDIES[study].specs("smoke", given={"networks": ["paper"]})[0]
    trainer = Trainer(spec, data.load(spec.data).train[:128])
    assert not trainer.nets["critic"].noise and trainer.nets["encoder"].eps_shape
    kernels = {
        m.kernel_size for m in trainer.nets["encoder"].modules() if hasattr(m, "kernel_size")
    }
    assert kernels == {(5, 5) if study == "cifar10" else (4, 4)}
    trainer.train()
    assert trainer.finite()


def test_mnist_has_no_other_networks(capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main(["mnist", "--scale", "smoke", "--set", "networks=paper"]) == 2
    assert "networks is paper; allowed for stand-in digits: suite" in capsys.readouterr().err


def leaves(network: nn.Module) -> Iterator[nn.Module]:
    """In order; a module that is in two places comes twice, unlike in `modules()`."""
    if not network._modules:
        yield network
    for child in network._modules.values():
        if child is not None:
            yield from leaves(child)


def spelled(network: nn.Module) -> str:
    """Every layer in its order, with its units or channels."""
    names = {nn.Flatten: "", View: "", nn.Conv2d: "conv", Conv: "conv", Deconv: "deconv"}
    names |= {nn.Linear: "fc", Linear: "fc"}
    names |= {nn.BatchNorm2d: "bn", nn.BatchNorm1d: "bn", nn.LeakyReLU: "leaky", nn.GroupNorm: "ln"}
    found = []
    for layer in leaves(network):
        units = [getattr(layer, a) for a in ("out_channels", "out_features") if hasattr(layer, a)]
        name = names.get(type(layer), type(layer).__name__.lower())
        found.append(name + "".join(str(unit) for unit in units))
    return " ".join(filter(None, found))


CODE, SUPPLEMENT = "suite", "paper"
LAYERS = {
    ("cifar10", CODE, "encoder"): "conv32 bn relu conv64 bn relu conv128 bn relu conv256 bn relu "
    "fc256 tanh",
    ("cifar10", CODE, "decoder"): "fc8192 bn relu deconv256 bn leaky deconv128 bn relu "
    "deconv3 tanh",
    ("cifar10", CODE, "critic"): "conv64 bn leaky conv128 bn leaky conv256 bn leaky conv512 bn "
    "leaky fc2048 leaky fc1",
    ("cifar10", SUPPLEMENT, "encoder"): "conv32 bn leaky conv64 bn leaky conv128 bn leaky conv256 "
    "bn leaky fc512 leaky fc256 tanh",
    ("cifar10", SUPPLEMENT, "decoder"): "fc8192 bn leaky deconv256 bn relu deconv128 bn relu "
    "deconv3 tanh",
    ("cifar10", SUPPLEMENT, "critic"): "conv64 bn relu conv128 bn relu conv256 bn relu conv512 bn "
    "relu avgpool2d fc512 relu fc1",
    ("celeba", CODE, "encoder"): "conv32 bn relu conv64 bn relu conv128 bn relu conv256 bn relu "
    "conv512 bn relu fc512 bn leaky fc64 tanh",
    ("celeba", CODE, "decoder"): "fc1024 relu bn leaky fc8192 bn leaky deconv256 bn leaky "
    "deconv128 bn leaky deconv64 bn leaky deconv3 tanh",
    ("celeba", CODE, "critic"): "conv64 bn leaky conv128 bn leaky conv256 bn leaky conv512 bn "
    "leaky avgpool2d fc2048 leaky fc1",
    ("celeba", SUPPLEMENT, "encoder"): "conv32 bn leaky conv64 bn leaky conv128 bn leaky conv256 "
    "bn leaky conv512 bn leaky fc512 leaky fc64 tanh",
    ("celeba", SUPPLEMENT, "decoder"): "fc1024 bn leaky fc8192 bn leaky deconv256 bn leaky "
    "deconv128 bn leaky deconv64 bn leaky deconv3 bn tanh",
    ("celeba", SUPPLEMENT, "critic"): "conv64 bn relu conv128 bn relu conv256 bn relu conv512 bn "
    "relu fc2046 relu fc1",
}
"""Of the authors' published models, and of the supplement's tables (appendix A)."""


@pytest.mark.parametrize(("name", "kind", "role"), LAYERS)
def test_layers_are_those_of_the_source(name: str, kind: str, role: str) -> None:
    networks = domain_of(name).networks(METHODS["svae_r"], 1.0, lambda role: 0, kind)
    assert spelled(networks[role]) == LAYERS[name, kind, role]


def test_the_decoder_norms_channels_of_its_first_images() -> None:
    """512 channels of 4 x 4, as the authors' code reshapes before it norms."""
    decoder = domain_of("cifar10").networks(METHODS["svae_r"], 1.0, lambda role: 0)["decoder"]
    norms = [m.num_features for m in decoder.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms == [512, 256, 128]
    critic = domain_of("celeba").networks(METHODS["svae_r"], 1.0, lambda role: 0)["critic"]
    assert critic.head[0].in_features == 2 * 2 * 512 + 2048  # type: ignore[index, union-attr]


def test_a_residual_block_is_its_shortcut_plus_two_convolutions() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 8, 8)

    def doubled(x: torch.Tensor) -> torch.Tensor:
        return x.repeat_interleave(2, 2).repeat_interleave(2, 3)

    def halved(x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(3, (-1, 2)).mean(4).unflatten(2, (-1, 2)).mean(3)

    up, down, same = Block(3, 4, 2.0), Block(3, 4, 0.5, first=True), Block(3, 3)
    torch.testing.assert_close(same(x), x + same.two(same.one(x.relu())))
    expected = up.shortcut(doubled(x)) + up.two(up.one(doubled(x.relu())))
    torch.testing.assert_close(up(x), expected)
    expected = down.shortcut(halved(x)) + halved(down.two(down.one(x)))
    torch.testing.assert_close(down(x), expected)


def test_wgan_gps_residual_networks_are_gulrajanis() -> None:
    """Appendix F: three doubling blocks from 4 x 4; two that halve, two more, no norm."""
    nets = domain_of("cifar10").networks(METHODS["wgan_gp_residual"], 1.0, lambda role: 0)
    blocks = [[m for m in nets[r].modules() if isinstance(m, Block)] for r in nets]
    assert [[b.resize for b in each] for each in blocks] == [[2.0] * 3, [0.5, 0.5, 1.0, 1.0]]
    critic = list(nets["critic"].modules())
    assert not any(isinstance(m, nn.BatchNorm2d | nn.GroupNorm) for m in critic)
    assert {m.out_channels for m in critic if isinstance(m, nn.Conv2d)} == {128}
    assert spelled(nets["decoder"]).startswith("fc2048 bn relu conv128")


def test_the_learned_density_of_images_is_torchs() -> None:
    """AS-VAE's likelihood of colour images, and that its sd learns how far off the means are."""
    nets = domain_of("cifar10").networks(METHODS["as_vae"], 1 / 32, lambda role: 0).eval()
    decoder, x = nets["decoder"], torch.rand(4, 3, 32, 32) * 2 - 1
    z = torch.rand(4, 256) * 2 - 1
    decoder.log_sd.data.fill_(-0.7)  # type: ignore[union-attr]
    theirs = torch.distributions.Normal(decoder(z), torch.tensor(-0.7).exp()).log_prob(x)
    ours = decoder.log_density(x, z)  # type: ignore[operator]
    torch.testing.assert_close(ours, theirs.flatten(1).sum(1))
    assert any(p is decoder.log_sd for p in nets.models())


def test_gaussian_codes_have_gaussian_noise() -> None:
    """log q(z|x) of AS-VAE and the density method is true only of it."""
    spec = STUDIES["cifar10"].specs("smoke", methods=["as_vae"])[0]
    trainer = Trainer(spec, data.load("stand-in photos").train[:128])
    draws = trainer.draws(trainer.batch(0), "0 model")
    with torch.no_grad():
        z = encode(trainer.nets, draws, draws.x)
        mean, log_sd = trainer.nets["encoder"].moments(draws.x)  # type: ignore[operator]
    u = (z - mean) / log_sd.exp()
    assert u.abs().max() > 2.5 and abs(float(u.var()) - 1) < 0.05


@pytest.mark.parametrize("method", domain_of("cifar10").methods())
def test_every_method_of_these_images_trains(method: str) -> None:
    spec = STUDIES["cifar10"].specs("smoke", methods=[method])[0]
    trainer = Trainer(spec, data.load("stand-in photos").train[:128])
    before = [p.clone() for p in trainer.models]
    trainer.train()
    assert trainer.finite()
    assert any(not torch.equal(p, q) for p, q in zip(before, trainer.models, strict=True))


def first(trainer: Trainer) -> torch.Tensor:
    """The stored images of the first batch."""
    trainer.batch(0)
    return trainer.images[trainer._order[: trainer.spec.batch]]


def test_noise_prior_and_pixels_are_uniform_on_the_full_range() -> None:
    spec = STUDIES["cifar10"].specs("smoke")[0]
    trainer = Trainer(spec, data.load("stand-in photos").train)
    x = trainer.batch(0)
    assert x.min() < -0.9 and x.max() > 0.9
    torch.testing.assert_close(trainer.domain.unit(x) * 255, first(trainer).float())
    z = trainer.draws(x, "0 model").noise("z", 256)
    assert -1 <= z.min() < -0.95 and 0.95 < z.max() < 1 and abs(z.var() - 1 / 3) < 0.02


def test_no_two_networks_are_given_the_same_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = STUDIES["cifar10"].specs("smoke", methods=["svae_r"], lams=[0.1])[0]
    trainer = Trainer(spec, data.load("stand-in photos").train[:128])
    named: list[str] = []
    noise = Draws.noise

    def listed(self: Draws, name: str, *shape: int) -> torch.Tensor:
        named.append(name)
        return noise(self, name, *shape)

    monkeypatch.setattr(Draws, "noise", listed)
    draws = trainer.draws(trainer.batch(0), "0 model")
    trainer.method.model(trainer.nets, draws, 0.1)
    assert len(named) == len(set(named)) == 9  # z, two codes, two images, four of the critic


def test_a_training_sees_the_first_images_only() -> None:
    spec = STUDIES["celeba"].specs("smoke", given={"images": [70]})[0]
    images = data.load("stand-in faces").train
    trainer = Trainer(spec, images)
    assert len(trainer.images) == 70 and trainer.steps_per_epoch == 1
    np.testing.assert_array_equal(trainer.images.numpy(), images[:70])


def test_images_that_no_referee_knows_get_no_inception_score(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(evaluate, "STATISTICS", 2)
    images = data.load("stand-in faces")
    assert evaluate.classifier_of(images) == "" and evaluate.classifier_columns(images) == {}
    spec = STUDIES["celeba"].specs("smoke", given={"samples": [20]})[0]
    trainer = Trainer(spec, images.train[:128])
    evaluate.freeze(trainer)
    found, _ = evaluate.scores(trainer, images, IMAGES)
    assert set(found) == {"swd", "swd_real", "mse_x", "mse_x_batch"}


def test_imagenets_scores_join_where_its_weights_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "imagenet", lambda weights, device: stand_in())
    monkeypatch.setattr(evaluate, "STATISTICS", 2)
    images = data.load("stand-in photos")
    spec = STUDIES["cifar10"].specs("smoke", given={"samples": [20]})[0]
    trainer = Trainer(spec, images.train[:128])
    evaluate.freeze(trainer)
    found, _ = evaluate.scores(trainer, images, IMAGES, "any")
    named = set(STUDIES["cifar10"].store(Path(), "smoke").rows.columns.names)
    theirs = {name for name in named if name.startswith(("imagenet_", "fid", "kid"))}
    assert theirs <= set(found) <= named
    assert found["imagenet_n_samples"] == 20 and found["imagenet_splits"] == 10
    assert found["imagenet_n_real"] == 500


@pytest.mark.parametrize(
    ("study", "message"),
    [
        ("toy_grid", "--inception-weights is for colour images; toy_grid has none"),
        ("mnist", "--inception-weights is for colour images; MNIST has none"),
        ("cifar10", "nowhere.pth can't be read"),
    ],
)
def test_weights_that_can_t_be_used_get_one_line(
    study: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate.imagenet.cache_clear()
    given = ["--inception-weights", str(tmp_path / "nowhere.pth"), "--results", str(tmp_path)]
    assert run.main([study, "--scale", "smoke", *given]) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1


def test_more_updates_of_the_critic_cost_more() -> None:
    spec = STUDIES["celeba"].specs("paper")[0]
    assert spec.critic_steps == 2
    once = training_seconds(replace(spec, critic_steps=1))
    assert 1.2 * once < training_seconds(spec) < 2 * once
