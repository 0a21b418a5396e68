"""Scores a trained stack, and measures the gradient that reaches its decoders."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from bench import plugins
from bench.scores.metrics import TOY, Metric, Outputs, measure
from bench.spec import generator
from bench.studies.toy_grid import data
from bench.studies.toy_grid.train import Trainer
from models.objectives import OBJECTIVES, regularised, squared_error

N_PICTURE = 256  # the suite keeps so many points of a run for pictures
Outcome = tuple[dict[str, float | int] | None, dict[str, np.ndarray]]
"""A member's metrics, or None if it has diverged, and by name its first points, float32, flat."""


def toy_metrics(
    samples: np.ndarray,
    x: np.ndarray,
    x_rec: np.ndarray,
    z: np.ndarray,
    z_rec: np.ndarray,
    wanted: Sequence[Metric] = TOY,
) -> dict[str, float | int]:
    """Returns the columns of one run's scores, from points (n, 2), by the exact posterior."""
    points = {"samples": samples, "x": x, "x_rec": x_rec, "z": z, "z_rec": z_rec}
    known = {name: np.asarray(each, dtype=np.float64) for name, each in points.items()}
    logits = data.posterior_logits(known["samples"])
    return measure(wanted, Outputs(**known, centres=data.CENTRES, logits=logits))


class Evaluation:
    """Evaluates every member of a stack on held-out x, z and noise, which are always the same."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer

        def tensor(arrays: list[np.ndarray]) -> Tensor:
            return torch.from_numpy(np.stack(arrays)).to(trainer.device, trainer.dtype)

        streams, size = [spec.stream for spec in trainer.specs], (4, 2, data.N_TEST)
        sets = [data.toy_data(stream) for stream in streams]
        noise = [generator(stream, "evaluation") for stream in streams]
        self.x = tensor([each.x_test.T for each in sets])
        self.z = tensor([each.z_test.T for each in sets])
        eps = tensor([each.standard_normal(size, dtype=np.float32) for each in noise])
        # The noise of encoders comes before that of decoders.
        self.eps, self.eps_cycle = eps.swapaxes(0, 1).unflatten(0, (2, 2)).flatten(1, 2)

    @torch.no_grad()
    def outcomes(self, wanted: Sequence[Metric] = TOY) -> list[Outcome]:
        """Returns the outcome of each member by these metrics, in the trainer's order."""
        code = self.trainer.nets.code
        z_x, x_z = code(self.x, self.z, self.eps)
        z_rec, x_rec = code(x_z, z_x, self.eps_cycle)
        tensors = {"samples": x_z, "x": self.x, "x_rec": x_rec, "z": self.z, "z_rec": z_rec}
        arrays = {name: each.mT.cpu().float().numpy() for name, each in tensors.items()}
        found = []
        for i, finite in enumerate(self.trainer.finite()):
            own = {name: each[i] for name, each in arrays.items()}
            finite = finite and all(np.isfinite(each).all() for each in own.values())
            points = {name: own[name][:N_PICTURE].flatten() for name in ("x", "x_rec", "samples")}
            found.append((toy_metrics(**own, wanted=wanted) if finite else None, points))
        return found

    @torch.no_grad()
    def losses(self) -> list[tuple[float, float]]:
        """Returns each member's losses, the critic's and the model's, as in training."""
        trainer, nets = self.trainer, self.trainer.nets
        z_x, x_z = nets.code(self.x, self.z, self.eps)
        logits = nets.logits(self.x, z_x, x_z, self.z, frozen=True)
        critic, model = trainer.reduce("critic", *logits), trainer.reduce("model", *logits)
        if trainer.cycle:
            z_rec, x_rec = nets.code(x_z, z_x, self.eps_cycle)
            error = squared_error(self.x, x_rec, self.z, z_rec)
            model = regularised(model, trainer.lam, error)
        return list(zip(critic.tolist(), model.tolist(), strict=True))

    def decoder_gradient(self) -> dict[str, list[float]]:
        """Returns the size of the gradient that each method's loss sends to the decoder now.

        The size is the root mean square of the norm of d loss / d x over held-out decoder pairs.
        The loss is that of a single pair (x, z) ~ p. All methods get the same critic and decoder,
        so they differ in the reduction of the logit alone. A diverged member has nan.
        """
        nets = self.trainer.nets
        with torch.no_grad():
            z_x, x_z = nets.code(self.x, self.z, self.eps)
        x_z.requires_grad_()
        f_q, f_p = nets.logits(self.x, z_x, x_z, self.z, frozen=True)
        (df_dx,) = torch.autograd.grad(f_p.sum(), x_z)
        size = df_dx.norm(dim=1)
        f_q, f_p = f_q.detach(), f_p.detach().requires_grad_()
        found = {}
        for method, objective in OBJECTIVES.items():
            try:
                loss = objective.model(f_q, f_p).sum() * f_p.shape[1]
                dl_df = torch.zeros_like(f_p)
                if loss.requires_grad:  # a method may leave f_p out
                    (dl_df,) = torch.autograd.grad(loss, f_p)
            except Exception:
                if not plugins.home("methods", method):
                    raise
                continue  # no training of another method is lost by a plug-in's
            found[method] = (dl_df * size).square().mean(1).sqrt().tolist()
        return found
