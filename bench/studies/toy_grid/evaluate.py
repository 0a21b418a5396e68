"""Scores a trained stack, and follows the gradient that reaches its decoders."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bench.scores.metrics import TOY, Outputs, measure
from bench.spec import generator
from bench.studies.toy_grid import data
from bench.studies.toy_grid.train import Trainer
from models.objectives import OBJECTIVES

N_PICTURE = 256
"""Points of a run that are kept for pictures."""


@dataclass(frozen=True)
class Outcome:
    """What one training came to; `metrics` is None where its parameters are not finite.

    Points are (256, 2), float32: data, their reconstructions and samples from the prior.
    """

    metrics: dict[str, float | int] | None
    x: np.ndarray
    x_rec: np.ndarray
    samples: np.ndarray


def toy_metrics(
    samples: np.ndarray, x: np.ndarray, x_rec: np.ndarray, z: np.ndarray, z_rec: np.ndarray
) -> dict[str, float | int]:
    """The columns of one run's scores, from points (n, 2), by the exact posterior."""
    points = {"samples": samples, "x": x, "x_rec": x_rec, "z": z, "z_rec": z_rec}
    known = {name: np.asarray(each, dtype=np.float64) for name, each in points.items()}
    logits = data.posterior_logits(known["samples"])
    return measure(TOY, Outputs(**known, centres=data.CENTRES, logits=logits))


class Evaluation:
    """The held-out x, z and noise of every member of a stack, fixed for all its evaluations."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        sets = [data.toy_data(spec.stream) for spec in trainer.specs]
        noise = [
            generator(spec.stream, "evaluation").standard_normal(
                (4, 2, data.N_TEST), dtype=np.float32
            )
            for spec in trainer.specs
        ]
        self.x = self._tensor([each.x_test.T for each in sets])
        self.z = self._tensor([each.z_test.T for each in sets])
        eps = self._tensor(noise)
        self.eps = torch.cat([eps[:, 0], eps[:, 1]])
        self.eps_cycle = torch.cat([eps[:, 2], eps[:, 3]])

    def _tensor(self, arrays: list[np.ndarray]) -> Tensor:
        return torch.from_numpy(np.stack(arrays)).to(self.trainer.device, self.trainer.dtype)

    @torch.no_grad()
    def outcomes(self) -> list[Outcome]:
        """One outcome a member, in the trainer's order."""
        nets = self.trainer.nets
        z_x, x_z = nets.code(self.x, self.z, self.eps)
        z_rec, x_rec = nets.code(x_z, z_x, self.eps_cycle)
        arrays = [t.mT.cpu().float().numpy() for t in (self.x, self.z, x_z, x_rec, z_rec)]
        outcomes = []
        for i, finite in enumerate(self.trainer.finite()):
            x, z, samples, x_rec, z_rec = (array[i] for array in arrays)
            points = (x, x_rec, samples)
            finite = finite and all(np.isfinite(array[i]).all() for array in arrays)
            metrics = toy_metrics(samples, x, x_rec, z, z_rec) if finite else None
            outcomes.append(Outcome(metrics, *(array[:N_PICTURE].copy() for array in points)))
        return outcomes

    def decoder_gradient(self) -> list[dict[str, float]]:
        """Size of the gradient that each method's loss would send to the decoder here and now.

        For every member and every method of `OBJECTIVES`: the root mean square, over held-out
        decoder pairs (x, z) ~ p, of the Euclidean norm of d loss / d x, the loss being that of a
        single pair. All methods are asked at the same critic and decoder, so that only the
        reduction of the logit differs. NaN where the member has diverged.
        """
        nets = self.trainer.nets
        with torch.no_grad():
            z_x, x_z = nets.code(self.x, self.z, self.eps)
        x_z.requires_grad_()
        f_q, f_p = nets.logits(self.x, z_x, x_z, self.z, frozen=True)
        (df_dx,) = torch.autograd.grad(f_p.sum(), x_z)
        size = df_dx.norm(dim=1)
        f_q, f_p = f_q.detach(), f_p.detach().requires_grad_()
        found: dict[str, list[float]] = {}
        for method, objective in OBJECTIVES.items():
            loss = objective.model(f_q, f_p).sum() * f_p.shape[1]
            (dl_df,) = torch.autograd.grad(loss, f_p)
            found[method] = (dl_df * size).square().mean(1).sqrt().tolist()
        return [{k: v[i] for k, v in found.items()} for i in range(nets.m)]
