"""Measures a model of the theory study: divergences, gradients, modes, codes and densities."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from bench.scores.metrics import Outputs, high_quality, modes
from bench.studies.theory.data import Gaussian, data_of, draws
from bench.studies.theory.spec import LINE, MODES, SQUARE
from bench.studies.theory.train import Trainer
from bench.studies.toy_grid.data import CENTRES
from models.explicit import gaussian_kl, log_mixture, log_normal, moments
from models.objectives import OBJECTIVES, density_ratio

N = 20_000
"""Fresh pairs of each joint behind every estimate."""
N_POINTS = 1024
"""Samples behind modes and quality, as in the toy study, and behind energy distances."""
N_CODES = 2048
"""Codes behind q(z), which is the mean of q(z|x) over so many x."""
HOLE = 0.1
"""Where q(z) is below this share of p(z), the prior has a hole."""
PLAYERS = ("encoder", "decoder")
Numbers = dict[str, float]


class Evaluation:
    """Evaluates one model on fresh pairs, which are the same for all methods of a stream."""

    def __init__(self, trainer: Trainer, n: int = N) -> None:
        """Draws n pairs of each joint."""
        self.trainer, self.spec = trainer, trainer.spec
        self.draw = next(draws(self.spec, "evaluation", trainer.device, n))
        self.eps = self.draw.model_eps[0]

    def losses(self) -> tuple[float | None, float]:
        """Returns the losses of the critic, None if it does not learn, and of the model."""
        trainer, critic = self.trainer, None
        if trainer.learns and trainer.method.critic is not None:
            batch = trainer.batch(self.draw.x, self.draw.z, self.draw.critic_eps[0])
            uniform = self.draw.critic_eps[0][:, -1:]
            critic = trainer.method.critic(trainer.critic, batch, uniform).item()
        return critic, trainer.model_loss(self.draw, self.eps).item()

    # Divergences along training

    def exact(self) -> dict[str, Tensor]:
        """Returns KL(p||q), KL(q||p) and KL_s of a linear model in closed form, with gradient."""
        data = data_of(self.spec)
        assert isinstance(data, Gaussian)
        q, p = moments(
            self.trainer.joints, torch.from_numpy(data.mean), torch.from_numpy(data.covariance)
        )
        pq, qp = gaussian_kl(p, q), gaussian_kl(q, p)
        return {"kl_pq": pq, "kl_qp": qp, "kl_s": pq + qp}

    @torch.no_grad()
    def sampled(self) -> Numbers:
        """Returns estimates of KL(p||q) and KL(q||p) from pairs, and their sum KL_s."""
        batch = self.trainer.batch(self.draw.x, self.draw.z, self.eps)
        joints = self.trainer.joints
        pq = float(joints(batch.x_z, batch.z).double().mean())
        qp = -float(joints(batch.x, batch.z_x).double().mean())
        return {"kl_pq": pq, "kl_qp": qp, "kl_s": pq + qp}

    @torch.no_grad()
    def believed(self) -> float:
        """Returns the critic's estimate of KL_s: (14) as the critic sees it, with its sign."""
        batch, f = self.trainer.batch(self.draw.x, self.draw.z, self.eps), self.trainer.f()
        loss = OBJECTIVES["svae_r"].model(*batch.logits(f))
        return float(loss)

    def descent(self) -> Numbers:
        """Returns closed-form divergences, the critic's estimate, and cosines of gradients.

        "value" is that of (14) at the optimal critic, by samples. A cosine is that of a player's
        gradient with the player's exact gradient of a divergence: of the gradient that the player
        follows in training ("follows"), and of the gradients of (14) and (19) at the optimal
        critic.
        """
        trainer, exact = self.trainer, self.exact()
        found = {name: each.item() for name, each in exact.items()} | {"believed": self.believed()}
        down = _gradient(exact["kl_s"], trainer.joints)
        loss = trainer.model_loss(self.draw, self.eps)
        batch = trainer.batch(self.draw.x, self.draw.z, self.eps)
        logits = batch.logits(trainer.joints.held())
        followed = {"follows": loss}
        followed |= {name: OBJECTIVES[name].model(*logits) for name in ("svae_r", "alice")}
        found["value"] = followed["svae_r"].item()
        found["follows kl_s"] = _cosine(_gradient(loss, trainer.joints), down)
        for player in PLAYERS:
            part = getattr(trainer.joints, player)
            wanted = {name: _gradient(each, part) for name, each in exact.items()}
            for name, each in followed.items():
                got = _gradient(each, part)
                for divergence, direction in wanted.items():
                    found[f"{player} {name} {divergence}"] = _cosine(got, direction)
            first, other = (_gradient(followed[name], part) for name in ("svae_r", "alice"))
            found[f"{player} alice svae_r"] = _cosine(other, first)
        return found

    # Vanishing gradients

    def vanishing(self) -> Numbers:
        """Returns the critic's excess loss, and the gradient that each reduction sends.

        The gradient is the root mean square over decoder pairs of the norm of d loss / d x. The
        loss is that of a single pair, as in the toy study.
        """
        critic, draw = self.trainer.critic, self.draw
        with torch.no_grad():
            batch = self.trainer.batch(draw.x, draw.z, self.eps)
        x_z = batch.x_z.requires_grad_()
        f_p = critic(x_z, batch.z)
        (slope,) = torch.autograd.grad(f_p.sum(), x_z)
        with torch.no_grad():
            f_q, best = critic(batch.x, batch.z_x), self.trainer.joints.held()
            f_star = best(batch.x, batch.z_x), best(x_z, batch.z)
            least = density_ratio(*f_star).item()  # on the same pairs, whose chance is the same
            loss = density_ratio(f_q, f_p).item()
        found = {"excess": loss - least, "loss": loss}
        return found | sizes(f_p.detach(), slope.norm(dim=1))

    # The end of a training

    @torch.no_grad()
    def scores(self) -> Numbers:
        """Returns the scores of a model of MODES or SUPPORTS at its end."""
        joints, draw = self.trainer.joints, self.draw
        batch = self.trainer.batch(draw.x, draw.z, self.eps)
        found = self.sampled()
        found["energy_x"] = energy(draw.x[:N_POINTS], batch.x_z[:N_POINTS])
        if self.spec.experiment == MODES:
            mean, log_sd = joints.decoder.moments(draw.z[:1])
            return found | {"mean": float(mean), "sd": float(log_sd.exp())}
        points = Outputs(samples=batch.x_z[:N_POINTS].double().cpu().numpy(), centres=CENTRES)
        found |= {"modes": modes(points), "high_quality": high_quality(points)}
        x_rec = joints.decoder.sample(batch.z_x, self.eps[:, -2:])
        found["mse_x"] = float((draw.x - x_rec).square().mean())
        found["energy_z"] = energy(draw.z[:N_POINTS], batch.z_x[:N_POINTS])
        prior, codes = draw.z[-N_CODES:], batch.z_x[-N_CODES:]
        gap = log_normal(prior) - self.log_q(prior)
        found["prior_pq"] = float(gap.mean())
        found["holes"] = float((gap > -math.log(HOLE)).double().mean())
        found["prior_qp"] = float((self.log_q(codes) - log_normal(codes)).mean())
        return found

    def log_q(self, z: Tensor) -> Tensor:
        """Returns log q(z), (batch,): of the mean of q(z|x) over other x than those of z."""
        return log_mixture(z, *self.trainer.joints.encoder.moments(self.draw.x[:N_CODES]))

    @torch.no_grad()
    def densities(self) -> dict[str, np.ndarray]:
        """Returns p(x) and q(z), flat, float32, on LINE or on SQUARE x SQUARE (rows: second)."""
        if self.spec.experiment == MODES:
            grid = torch.from_numpy(np.linspace(*LINE)[:, None]).to(self.draw.x)
            mean, log_sd = self.trainer.joints.decoder.moments(self.draw.z[:1])
            return {"density_x": log_normal(grid, mean, log_sd).exp().cpu().numpy()}
        grid = np.stack(np.meshgrid(*[np.linspace(*SQUARE)] * 2), -1).reshape(-1, 2)
        grid = torch.from_numpy(grid).to(self.draw.x)
        log_p = log_mixture(grid, *self.trainer.joints.decoder.moments(self.draw.z[:N_CODES]))
        found = {"density_x": log_p, "density_z": self.log_q(grid)}
        return {name: each.exp().float().cpu().numpy() for name, each in found.items()}


def _gradient(loss: Tensor, part: nn.Module) -> Tensor:
    """Returns the gradient of a loss with respect to all parameters of a network, in one row."""
    found = torch.autograd.grad(loss, list(part.parameters()), retain_graph=True)
    return torch.cat([each.flatten() for each in found]).double()


def _cosine(a: Tensor, b: Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(a, b, dim=0, eps=1e-30))


def sizes(f: Tensor, slope: Tensor | float) -> Numbers:
    """Returns the RMS of |d loss / d f| times the slope of f (batch,), for every reduction."""
    found, f_p = {}, f.double().requires_grad_()
    for name, objective in OBJECTIVES.items():
        loss = objective.model(torch.zeros_like(f_p), f_p) * len(f_p)
        (each,) = torch.autograd.grad(loss, f_p)
        found[f"gradient {name}"] = float((each * slope).square().mean().sqrt())
    return found


def energy(a: Tensor, b: Tensor) -> float:
    """Returns the energy distance 2 E|a - b| - E|a - a'| - E|b - b'| of two samples (n, d).

    Székely & Rizzo 2013, (5); pairs of a point with itself are left out, so its mean is 0 for equal
    distributions.
    """

    def within(c: Tensor) -> Tensor:
        return torch.cdist(c, c).double().sum() / (len(c) * (len(c) - 1))

    return float(2 * torch.cdist(a, b).double().mean() - within(a) - within(b))
