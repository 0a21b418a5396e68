"""Estimates log p(x) of a decoder by annealed importance sampling (AIS) and checks the estimate.

Chains move from the prior to the posterior of one image through f_t(u) = N(u; 0, I) p(x|u)^beta_t
(Neal 2001), with one Hamiltonian trajectory at each beta (Wu et al. 2017, *On the Quantitative
Analysis of Decoder-Based Generative Models*, and its code, eval_gen). The mean weight over chains
is unbiased for p(x), so its logarithm is a stochastic lower bound. The code behind a simulated
image is an exact sample of its posterior. Chains that start there and run backwards have inverse
weights unbiased for 1 / p(x), so minus the logarithm of their mean is a stochastic upper bound.
That holds although all chains of an image start at one code, because a mean of dependent terms
is unbiased too. Upper minus lower is the gap of bidirectional Monte Carlo (BDMC; Grosse,
Ghahramani & Adams 2015).

Two things differ from eval_gen. Each image adapts its own step size, which starts larger, so no
image's value depends on the others. The backward chains replay the forward step sizes in reverse
order, so their kernels do not depend on their own past. Forward kernels do; there the mean weight
was within its standard error of 1 % of p(x) on linear-Gaussian models.

It is written here because no library that the suite uses has it.

Every random number is a function of seed, image and temperature: of no generator's past.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.scores.latent import LatentModel, log_mean_exp, trajectory, value_and_slope

TARGET, MEMORY = 0.65, 0.9
FASTER, SLOWER = 1.02, 0.98
MIN_STEP, MAX_STEP = 1e-4, 0.5
"""The step size moves as in eval_gen: x 1.02 or x 0.98 towards a mean acceptance of .65."""
START = 0.1
"""The first step size; from eval_gen's .01 it takes 115 temperatures to come here."""
BATCH = {"cpu": 512, "cuda": 8192}
"""The most chains that go through the decoder in one call, by type of device."""

GIVEN, SIMULATED, REVERSE, MODEL = range(4)
"""What a random number is for: forward chains (of either kind of image), backward ones, images."""

Place = tuple[int, int]
"""One of these purposes and the number of an image."""


def schedule(temperatures: int) -> list[float]:
    """Returns beta from 0 to 1, both included: a scaled sigmoid over [-4, 4] (Wu et al. 2017).

    Raises ValueError for fewer than 2 temperatures.
    """
    if temperatures < 2:
        raise ValueError(f"temperatures is {temperatures}; allowed: 2 or more")
    gamma = 1 / (1 + np.exp(-np.linspace(-4, 4, temperatures)))
    return ((gamma - gamma[0]) / (gamma[-1] - gamma[0])).tolist()


def _random(seed: int, place: Place, t: int) -> np.random.Generator:
    """The generator of one image at one temperature: an address in a counter-based stream."""
    return np.random.Generator(np.random.Philox(key=[seed, 0], counter=[0, t, *place]))


def draw(seed: int, place: Place, t: int, chains: int, d: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns N(0, 1) of (chains, d), positions or momenta, and uniforms (chains,) to accept by."""
    rng = _random(seed, place, t)
    return rng.standard_normal((chains, d)), rng.random(chains)


def _simulated(model: LatentModel, seed: int, i: int) -> tuple[Tensor, Tensor]:
    """Image i (1, p) simulated from the model and the code (1, d) behind it."""
    rng = _random(seed, (MODEL, i), 0)
    u = torch.from_numpy(rng.standard_normal((1, model.d))).to(model.device, model.dtype)
    generator = torch.Generator().manual_seed(int(rng.integers(2**63)))
    with torch.no_grad():
        return model.simulate(u, generator), u


@dataclass(frozen=True)
class Estimate:
    """Bounds in nats, float64, one for each image; without images of a kind there are none.

    `log_likelihood` (n,) bounds log p(x) of the given images from below; `lower` and `upper`
    (m,) bound it on simulated ones, `upper` being inf where it failed. Upper minus lower is the
    BDMC gap. `acceptance` is a mean over all trajectories.
    """

    log_likelihood: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    acceptance: float


def mean_and_se(values: np.ndarray) -> tuple[float, float]:
    """Mean over images, nan for none, and its standard error, nan for one and where any is inf."""
    mean = float(values.mean()) if len(values) else math.nan
    if len(values) < 2 or not np.isfinite(values).all():
        return mean, math.nan
    return mean, float(values.std(ddof=1) / math.sqrt(len(values)))


@dataclass
class _State:
    """What one temperature hands to the next. The chains of an image are neighbouring rows."""

    accepted: Tensor  # (), float64: how many trajectories moved
    lower: Tensor  # (images,): the bound, once all chains have come to beta = 1
    steps: Tensor  # (temperatures, simulated): step sizes on the way there
    u: Tensor  # (rows, d)
    log_lik: Tensor  # (rows,): log p(x|u)
    slope: Tensor  # (rows, d): its gradient
    log_w: Tensor  # (rows,), float64: log of the weight; backwards, of its inverse
    step_size: Tensor  # (images,)
    rate: Tensor  # (images,): running mean of acceptance


class AnnealedRun:
    """AIS on given images and BDMC on simulated ones, a temperature at a time.

    All images run forward as one batch, then the simulated ones backward: `t` of `total` steps
    are made. `state` and `load` carry a run over to another process; on a CPU it ends with the
    same bits. A state fits a run of the same arguments; the caller sees to it that model and x are
    the same. `lower` and `upper` of the result are about `simulated_images` (m, p).
    """

    def __init__(
        self,
        model: LatentModel,
        x: Tensor | None = None,
        *,
        simulated: int = 0,
        temperatures: int,
        chains: int,
        leapfrog: int = 10,
        seed: int,
        batch: int | None = None,
    ) -> None:
        """Takes given images x (n, p), a number of simulated ones and the most chains in one call.

        Raises ValueError for numbers that are too small and where there is no image at all.
        """
        for name, value in (("chains", chains), ("leapfrog", leapfrog)):
            if value < 1:
                raise ValueError(f"{name} is {value}; allowed: 1 or more")
        self.model, self.seed, self.chains, self.leapfrog = model, seed, chains, leapfrog
        self.batch = batch or BATCH[torch.device(model.device).type]
        self._beta, self._last = schedule(temperatures), temperatures - 1
        self._given, self._simulated = 0 if x is None else len(x), simulated
        if not self._given + simulated:
            raise ValueError("no image: give x or a number of simulated images")
        self._arguments = [seed, temperatures, chains, leapfrog, self._given, simulated]
        drawn = [_simulated(model, seed, i) for i in range(simulated)]
        given = [] if x is None else [x.to(model.device, model.dtype)]
        self._images = torch.cat([*given, *(image for image, _ in drawn)])
        self._codes = [u for _, u in drawn]
        self.simulated_images = self._images[self._given :]
        self.t, self.total = 0, self._last * (2 if simulated else 1)
        accepted = torch.zeros((), dtype=torch.float64, device=model.device)
        lower = accepted.new_zeros(len(self._images))
        steps = self._images.new_zeros((temperatures, simulated))
        self._now = _State(accepted, lower, steps, **self._start(self._draw(0)[0]))

    def step(self) -> None:
        """The next temperature: the weight of going there, then one trajectory at it."""
        last, now = self._last, self._now
        i, to = self.t, self.t + 1
        if self._backward:
            i, to = 2 * last - i, 2 * last - to
        now.log_w += (self._beta[to] - self._beta[i]) * now.log_lik
        if 0 < to < last:  # at 0 and 1 the weights are complete
            self._move(to)
        self.t += 1
        if self.t == last:
            now.lower = log_mean_exp(now.log_w.view(-1, self.chains))
            if self._simulated:  # every chain starts backwards at the code behind its image
                codes = torch.cat(self._codes).repeat_interleave(self.chains, 0)
                self._now = replace(now, **self._start(codes))

    def finish(self, progress: Callable[[int, int], None] | None = None) -> Estimate:
        """Runs to the end; `progress` hears of (t, total) after every temperature."""
        while self.t < self.total:
            self.step()
            if progress:
                progress(self.t, self.total)
        upper = -log_mean_exp(self._now.log_w.view(-1, self.chains))[: self._simulated]
        # a code of probability 0 cannot have made its image: nothing bounds it from above
        upper = torch.where(upper.isfinite(), upper, math.inf)
        trajectories = (self._given + 2 * self._simulated) * self.chains * (self._last - 1)
        lower = self._now.lower.cpu().numpy()
        return Estimate(
            lower[: self._given],
            lower[self._given :],
            upper.cpu().numpy(),
            float(self._now.accepted) / trajectories if trajectories else math.nan,
        )

    def state(self) -> dict[str, Tensor]:
        """All that changes from step to step, copied to the CPU, as safetensors takes it."""
        numbers = {"arguments": torch.tensor(self._arguments), "t": torch.tensor(self.t)}
        tensors = numbers | vars(self._now)
        return {name: tensor.to("cpu", copy=True) for name, tensor in tensors.items()}

    def load(self, state: dict[str, Tensor]) -> None:
        """Goes on where `state` was taken. Raises ValueError if that was in another run."""
        if state["arguments"].tolist() != self._arguments:
            raise ValueError(
                "state of a run with (seed, temperatures, chains, leapfrog, given, simulated) = "
                f"{state['arguments'].tolist()}; allowed: {self._arguments}"
            )
        names = vars(self._now)
        here = {name: state[name].to(self.model.device, copy=True) for name in names}
        self.t, self._now = int(state["t"]), _State(**here)

    @property
    def _backward(self) -> bool:
        return self.t >= self._last

    def _draw(self, t: int) -> tuple[Tensor, Tensor]:
        """Of all rows: N(0, 1) of (rows, d) and logs of uniforms (rows,)."""
        places = [(REVERSE if self._backward else SIMULATED, i) for i in range(self._simulated)]
        if not self._backward:
            places = [(GIVEN, i) for i in range(self._given)] + places
        drawn = [draw(self.seed, place, t, self.chains, self.model.d) for place in places]
        normal, uniform = (
            torch.from_numpy(np.concatenate(parts)) for parts in zip(*drawn, strict=True)
        )
        device, dtype = self.model.device, self.model.dtype
        return normal.to(device, dtype), uniform.log().to(device, dtype)

    def _start(self, u: Tensor) -> dict[str, Tensor]:
        """The part of a `_State` that is about chains: of weight 1, at u (rows, d)."""
        log_lik, slope = self._in_parts(lambda x, u: value_and_slope(self.model, u, x), u)
        log_w = torch.zeros_like(log_lik, dtype=torch.float64)
        each = torch.ones_like(log_lik[:: self.chains])
        chains = {"u": u, "log_lik": log_lik, "slope": slope, "log_w": log_w}
        return chains | {"step_size": START * each, "rate": TARGET * each}

    def _in_parts(self, function: Callable[..., tuple[Tensor, ...]], *rows: Tensor) -> list[Tensor]:
        """What a function makes of the rows' images and the rows, so many at once as `batch`."""
        x = self.simulated_images if self._backward else self._images
        image = torch.arange(len(x)).repeat_interleave(self.chains)
        batches = zip(*(each.split(self.batch) for each in (image, *rows)), strict=True)
        parts = [function(x[image], *some) for image, *some in batches]
        return [torch.cat(part) for part in zip(*parts, strict=True)]

    def _move(self, t: int) -> None:
        """One trajectory of every chain at temperature t; forward, the next step sizes too."""
        now, beta = self._now, self._beta[t]
        if self._backward:
            now.step_size = now.steps[t]
        else:
            now.steps[t] = now.step_size[self._given :]
        now.u, now.log_lik, now.slope, accepted = self._in_parts(
            lambda x, *rows: trajectory(self.model, x, beta, self.leapfrog, *rows),
            now.step_size.repeat_interleave(self.chains)[:, None],
            *(now.u, now.log_lik, now.slope),
            *self._draw(t),
        )
        now.accepted += accepted.sum()
        if not self._backward:
            faster, slower = FASTER * now.step_size, SLOWER * now.step_size
            adapted = torch.where(now.rate > TARGET, faster, slower)
            now.step_size = adapted.clamp(MIN_STEP, MAX_STEP)
            share = accepted.view(-1, self.chains).to(now.rate).mean(-1)
            now.rate = MEMORY * now.rate + (1 - MEMORY) * share


def log_likelihood(model: LatentModel, x: Tensor, **settings: Any) -> Estimate:
    """Returns lower bounds of log p(x) for images x (n, p); settings as of `AnnealedRun`."""
    return AnnealedRun(model, x, **settings).finish()
