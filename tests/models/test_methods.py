"""Every method of the image studies: contracts, known values, flows and networks."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from bench.check.contracts import images
from bench.check.contracts.images import KINDS, Kind
from bench.studies.images.train import Draws
from models import colour, mnist
from models.batch import generate
from models.flows import AutoregressiveFlow, PlanarFlow
from models.methods import DENSITY_SD, MARGIN, METHODS, PENALTY, _contrast, label
from models.mnist import (
    ImageNetworks,
    ImageShape,
    Part,
    bernoulli_log_density,
    normal_log_density,
)
from models.objectives import OBJECTIVES

SHAPE, N = KINDS["grey"].shape, images.IMAGES
PIXELS = 28 * 28
LN2 = math.log(2)
ALL = pytest.mark.parametrize("name", METHODS)


def kind_of(name: str) -> Kind:
    """Grey images where the method can be trained on them, else colour images."""
    return KINDS[images.kinds(METHODS[name])[0]]


def batch(kind: Kind = KINDS["grey"]) -> Draws:
    return images.batch(kind)


def networks(name: str) -> ImageNetworks:
    return images.networks(METHODS[name], kind_of(name))


def losses(name: str, nets: ImageNetworks, lam: float = 0.1) -> list[Tensor]:
    method = METHODS[name]
    found = [] if method.critic is None else [method.critic(nets, batch(kind_of(name)))]
    return [*found, method.model(nets, batch(kind_of(name)), lam)]


class TestContract:
    """What every method of the registry keeps; a new one is covered by being there."""

    @ALL
    def test_its_entry_and_its_losses_keep_all_contracts(self, name: str) -> None:
        kind, *_ = images.kinds(METHODS[name])
        found = images.of_method(name) + images.of_images(name, kind)
        own = {} if name in OBJECTIVES else images.OWN_LOSS
        kept = {*images.ENTRY, *images.IMAGE_LOSS, *own}
        assert {each.contract for each in found} == kept
        assert not [each for each in found if each.text]

    @ALL
    def test_weights_are_those_of_the_role(self, name: str) -> None:
        one, other = networks(name), networks("svae_r")
        if METHODS[name].parts["decoder"] == "conv":
            for a, b in zip(
                one["decoder"].parameters(), other["decoder"].parameters(), strict=True
            ):
                assert torch.equal(a, b)

    def test_names_are_distinct(self) -> None:
        names = [label(name, lam) for name in METHODS for lam in (0.0, 0.1)]
        cycles = sum(bool(m.label_cycle) for m in METHODS.values())
        assert len(set(names)) == len(METHODS) + cycles
        assert set(OBJECTIVES) < set(METHODS)

    def test_an_objective_that_is_added_later_is_a_method(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        late = replace(OBJECTIVES["alice"], label="late", label_cycle="late-r")
        monkeypatch.setitem(OBJECTIVES, "late", late)
        assert "late" in METHODS and list(METHODS)[: len(OBJECTIVES)] == list(OBJECTIVES)
        assert (label("late", 0.0), label("late", 0.1)) == ("late", "late-r")
        nets = networks("alice")
        assert losses("late", nets) == losses("alice", nets)


@pytest.mark.parametrize(
    ("table", "sizes", "shape"),
    [
        (colour.PARTS, colour.SIZES, ImageShape(3, 16, 6, 1 / 32)),
        (colour.PARTS, colour.SIZES, ImageShape(1, 128, 6, 1 / 32)),
        (colour.PAPER, colour.PAPER_SIZES, ImageShape(1, 64, 6, 1 / 32)),
        (mnist.PARTS, mnist.SIZES, ImageShape(3, 16, 6, 1 / 32)),
        (mnist.PARTS, mnist.SIZES, ImageShape(1, 36, 6, 1 / 32)),
    ],
)
def test_networks_take_images_of_many_sizes(
    table: dict[str, Part], sizes: tuple[int, ...], shape: ImageShape
) -> None:
    assert shape.size in sizes
    for method in METHODS.values():
        if set(method.parts.values()) <= set(table):
            nets = ImageNetworks(method.parts, shape, lambda role: 0, table).double()
            some = batch(Kind(table, shape))
            assert generate(nets, some).shape == some.x.shape
            assert method.model(nets, some, 0.1).isfinite()
            assert method.critic is None or method.critic(nets, some).isfinite()


def zeroed(name: str) -> ImageNetworks:
    """All weights and biases 0: critics say 0, means are 1/2, q(z|x) is the prior."""
    nets = networks(name)
    for module in nets.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            nn.init.zeros_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return nets


def known() -> dict[str, tuple[float | None, float]]:
    """Critic's and model's loss of zeroed networks at lambda 0, by hand."""
    noise = batch()
    distortion = PIXELS * LN2
    # Implicit codes are 0 here, the Gaussian ones are eps itself.
    energy = float((noise.x - 0.5).square().flatten(1).sum(1).add(1e-8).sqrt().mean())
    z0 = noise.normal("eps", SHAPE.d_z).square().sum(1)
    s = 1 / (1 + math.exp(-1))
    log_det = 4 * SHAPE.d_z * math.log(s)
    iaf = float((-0.5 * z0 + 0.5 * s**8 * z0).mean()) - log_det
    log_q = normal_log_density(noise.normal("z", SHAPE.d_z), 0.0, 0.0).mean()
    return {
        "svae_r": (2 * LN2, 0.0),
        "alice": (2 * LN2, 2 * LN2),
        "alice_minimax": (2 * LN2, -2 * LN2),
        "alice_sigmoid": (2 * LN2, 0.0),
        "svae_r_density": (2 * LN2, 0.0),
        "vae": (None, distortion),
        "nf_vae": (None, distortion),
        "iaf_vae": (None, distortion + iaf),
        "avb": (2 * LN2, distortion),
        "avb_ac": (2 * LN2, distortion + SHAPE.d_z * -math.log(1e-2)),
        "aae": (2 * LN2, distortion + LN2),
        "as_vae": (4 * LN2, distortion - float(log_q)),
        "gan": (2 * LN2, LN2),
        "dcgan": (2 * LN2, LN2),
        "wgan": (0.0, 0.0),
        "wgan_gp": (PENALTY, 0.0),
        "wgan_gp_residual": (PENALTY, 0.0),
        "ebgan": (energy + MARGIN, 0.0),
    }


def test_every_method_has_a_known_value() -> None:
    assert known().keys() == METHODS.keys()


@pytest.mark.parametrize("name", known())
def test_values_of_zeroed_networks(name: str) -> None:
    critic, model = known()[name]
    *first, last = (loss.detach() for loss in losses(name, zeroed(name), lam=0.0))
    if critic is not None:
        assert float(first[0]) == pytest.approx(critic, abs=1e-3 if name == "ebgan" else 1e-9)
    assert float(last) == pytest.approx(model, abs=1e-3 if name == "ebgan" else 1e-9)


def test_lambda_weighs_nats_in_the_density_method() -> None:
    """(29) by hand at zeroed networks: x ~ N(1/2, 0.05^2), z ~ N(0, I)."""
    noise = batch()
    log_p = normal_log_density(noise.x, 0.5, math.log(DENSITY_SD)).mean()
    log_q = normal_log_density(noise.normal("z", SHAPE.d_z), 0.0, 0.0).mean()
    loss = losses("svae_r_density", zeroed("svae_r_density"), lam=0.3)[-1].detach()
    assert float(loss.detach()) == pytest.approx(float(-0.3 * (log_p + log_q)), rel=1e-9)


def test_the_cycle_is_the_mean_absolute_error_of_both() -> None:
    noise = batch()
    z = noise.normal("z", SHAPE.d_z)
    expected = 0.3 * ((noise.x - 0.5).abs().mean() + z.abs().mean())
    loss = losses("svae_r", zeroed("svae_r"), lam=0.3)[-1].detach()
    assert float(loss.detach()) == pytest.approx(float(expected), rel=1e-12)


def test_densities_are_torchs() -> None:
    rng = torch.Generator().manual_seed(1)
    z, mean, log_sd = torch.randn(3, 5, 4, generator=rng, dtype=torch.float64).unbind(0)
    theirs = torch.distributions.Normal(mean, log_sd.exp()).log_prob(z).sum(1)
    torch.testing.assert_close(normal_log_density(z, mean, log_sd), theirs)
    bits = (z > 0).double()
    theirs = torch.distributions.Bernoulli(logits=mean).log_prob(bits).sum(1)
    torch.testing.assert_close(bernoulli_log_density(bits, mean), theirs)


@pytest.mark.parametrize("kind", [PlanarFlow, AutoregressiveFlow])
def test_flows_know_their_own_jacobian(kind: type[PlanarFlow | AutoregressiveFlow]) -> None:
    torch.manual_seed(0)
    flow = kind(4, 7).double()
    for parameter in flow.parameters():
        nn.init.normal_(parameter, std=0.5)
    z, h = torch.randn(3, 4, dtype=torch.float64), torch.randn(3, 7, dtype=torch.float64)
    out, log_det = flow(z, h)
    for i in range(3):
        jacobian = torch.autograd.functional.jacobian(
            lambda one, i=i: flow(one[None], h[i : i + 1])[0][0], z[i]
        )
        assert isinstance(jacobian, Tensor)
        torch.testing.assert_close(torch.linalg.slogdet(jacobian)[1], log_det[i])
    assert (out - z).abs().max() > 0.1


def test_an_autoregressive_step_sees_earlier_coordinates_only() -> None:
    torch.manual_seed(0)
    step = AutoregressiveFlow(5, 3).double().steps[0]
    h = torch.randn(1, 3, dtype=torch.float64)
    for output in (0, 1):
        jacobian = torch.autograd.functional.jacobian(
            lambda z, output=output: step(z[None], h)[output][0],
            torch.randn(5, dtype=torch.float64),
        )
        assert isinstance(jacobian, Tensor)
        assert torch.equal(jacobian, jacobian.tril(-1)) and jacobian.abs().sum() > 0


def test_the_joint_critic_sees_how_x_and_z_belong_together() -> None:
    """A sum of a function of x and one of z has no mixed difference."""
    critic = networks("svae_r")["critic"].eval()
    x = batch().x
    z = torch.randn(N, SHAPE.d_z, dtype=torch.float64)
    f = [[critic(a, b) for b in (z, z.flip(0))] for a in (x, x.flip(0))]
    assert (f[0][0] - f[0][1] - f[1][0] + f[1][1]).abs().max() > 1e-4


def test_signs_follow_the_paper() -> None:
    """Label 1 is the decoder pair: a critic that is surely right has a small loss."""
    nets = networks("svae_r")
    f_q, f_p = torch.full((4,), -8.0), torch.full((4,), 8.0)
    assert float(OBJECTIVES["svae_r"].critic(f_q, f_p)) == pytest.approx(
        -2 * float(logsigmoid(torch.tensor(8.0)))
    )
    assert nets.critics() and nets.models()


class Stub(dict):
    """Networks that answer with known numbers, so that every sign shows.

    The decoder gives 0.25 and logits of 0; codes of images are 3, codes of the prior are noise; a
    critic says 1 of real images, 2 of generated ones, plus 10 for codes of images.
    """

    def __init__(self, critic_of_codes: bool = False) -> None:
        super().__init__()
        self.shape = SHAPE
        half = torch.zeros((), dtype=torch.float64, requires_grad=True)

        def decode(z: Tensor) -> Tensor:
            return torch.full((len(z), 1, 28, 28), 0.25, dtype=torch.float64) + half

        decode.logits = lambda z: torch.zeros(len(z), 1, 28, 28, dtype=torch.float64)  # type: ignore[attr-defined]

        def encode(x: Tensor, eps: Tensor) -> Tensor:
            return torch.full((len(x), SHAPE.d_z), 3.0, dtype=torch.float64)

        encode.eps_shape = (1, 28, 28)  # type: ignore[attr-defined]

        def critic(x: Tensor, z: Tensor | None = None) -> Tensor:
            if critic_of_codes:
                return torch.where((x == 3).all(1), 1.0, 2.0).double()
            generated = (x == 0.25).flatten(1).all(1)
            f = torch.where(generated, 2.0, 1.0).double()
            return f if z is None else f + 10 * (z == 3).all(1)

        self.update(encoder=encode, decoder=decode, critic=critic)


def sp(value: float) -> float:
    return math.log1p(math.exp(value))


@pytest.mark.parametrize(
    ("name", "critic", "model"),
    [
        # f_q = 11 of (real, code of it), f_p = 2 of (generated, prior); label 1 = decoder pair
        ("svae_r", sp(11) + sp(-2), 2 - 11),
        ("alice", sp(11) + sp(-2), sp(2) + sp(-11)),
        # f = 11 of (x, q's code) and 1 of (x, prior's); -f in the place of the KL
        ("avb", sp(11) + sp(-1), PIXELS * LN2 - 11),
        ("gan", sp(1) + sp(-2), sp(2)),
        ("dcgan", sp(1) + sp(-2), sp(2)),
        ("wgan", 2 - 1, -2),
        # energies: 1 of real, 2 of generated
        ("ebgan", 1 + (MARGIN - 2), 2),
    ],
)
def test_signs_by_hand(name: str, critic: float, model: float) -> None:
    method, nets = METHODS[name], Stub()
    assert method.critic is not None
    assert float(method.critic(nets, batch()).detach()) == pytest.approx(critic, rel=1e-9)
    assert float(method.model(nets, batch(), 0.0).detach()) == pytest.approx(model, rel=1e-9)


def test_signs_of_the_aae_by_hand() -> None:
    """f(z) = 1 of codes of images, 2 of the prior's; codes shall pass for the prior's."""
    method, nets = METHODS["aae"], Stub(critic_of_codes=True)
    assert method.critic is not None
    assert float(method.critic(nets, batch())) == pytest.approx(sp(1) + sp(-2))
    assert float(method.model(nets, batch(), 0.0)) == pytest.approx(PIXELS * LN2 + sp(-1))


def test_adaptive_contrast_measures_a_code_by_others() -> None:
    """Normalised codes of a Gaussian q have its tails: by their own moments none passes 1.5 sd."""
    nets = networks("avb_ac")
    with torch.no_grad():
        z, mean, sd = _contrast(nets, batch())
    assert z.shape == mean.shape == sd.shape == (N, SHAPE.d_z)
    assert float(((z - mean) / sd).square().mean()) > 1
