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

Every random number is a function of seed, image and temperature: of no generator's past.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
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
    (m,) bound it on simulated ones. `acceptance` is a mean over all trajectories.
    """

    log_likelihood: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    acceptance: float

    @property
    def mean(self) -> float:
        """Mean of `log_likelihood`; nan without images."""
        return _mean(self.log_likelihood)

    @property
    def se(self) -> float:
        """Standard error of `mean` over images; nan for fewer than two."""
        return _standard_error(self.log_likelihood)

    @property
    def bdmc_gap(self) -> float:
        """Mean of upper minus lower, nan without simulated images; inf where a bound failed."""
        return _mean(self.upper - self.lower)

    @property
    def bdmc_gap_se(self) -> float:
        """Standard error of `bdmc_gap` over simulated images; nan for fewer than two."""
        return _standard_error(self.upper - self.lower)


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else math.nan


def _standard_error(values: np.ndarray) -> float:
    if len(values) < 2 or not np.isfinite(values).all():
        return math.nan
    return float(values.std(ddof=1) / math.sqrt(len(values)))


@dataclass
class _Chains:
    """What one temperature hands to the next. The chains of an image are neighbouring rows."""

    u: Tensor  # (rows, d)
    log_lik: Tensor  # (rows,): log p(x|u)
    slope: Tensor  # (rows, d): its gradient
    log_w: Tensor  # (rows,), float64: log of the weight; backwards, of its inverse
    step_size: Tensor  # (images,)
    rate: Tensor  # (images,): running mean of acceptance


class AnnealedRun:
    """AIS on given images and BDMC on simulated ones, a temperature at a time.

    All images run forward as one batch, then the simulated ones backward. `state` and `load`
    carry a run over to another process; on a CPU it ends with the same bits. A state fits a run
    of the same arguments; the caller sees to it that model and x are the same.
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
        self.model, self.seed = model, seed
        self.temperatures, self.chains, self.leapfrog = temperatures, chains, leapfrog
        self.batch = batch or BATCH[torch.device(model.device).type]
        self._beta = schedule(temperatures)
        self._given, self._simulated = 0 if x is None else len(x), simulated
        if not self._given + simulated:
            raise ValueError("no image: give x or a number of simulated images")
        drawn = [_simulated(model, seed, i) for i in range(simulated)]
        given = [] if x is None else [x.to(model.device, model.dtype)]
        self._images = torch.cat([*given, *(image for image, _ in drawn)])
        self._codes = [u for _, u in drawn]
        self.t = 0
        self._accepted = torch.zeros((), dtype=torch.float64, device=model.device)
        self._lower = self._accepted.new_zeros(len(self._images))
        self._steps = self._images.new_zeros((temperatures, simulated))
        self._places = [(GIVEN, i) for i in range(self._given)]
        self._places += [(SIMULATED, i) for i in range(simulated)]
        self._start(self._images, self._draw(0)[0])

    @property
    def simulated_images(self) -> Tensor:
        """The images (m, p) that `lower` and `upper` of the result are about."""
        return self._images[self._given :]

    @property
    def total(self) -> int:
        """Steps of the whole run, there and back; it is over when `t` has come to it."""
        return (self.temperatures - 1) * (2 if self._simulated else 1)

    def step(self) -> None:
        """The next temperature: the weight of going there, then one trajectory at it."""
        last, now = self.temperatures - 1, self._now
        forward = self.t < last
        i = self.t if forward else 2 * last - self.t
        to = i + 1 if forward else i - 1
        now.log_w += (self._beta[to] - self._beta[i]) * now.log_lik
        if 0 < to < last:  # at 0 and 1 the weights are complete
            self._move(to, forward)
        self.t += 1
        if self.t == last:
            self._lower = log_mean_exp(now.log_w.view(-1, self.chains))
            if self._simulated:
                self._turn()

    def finish(self, progress: Callable[[int, int], None] | None = None) -> Estimate:
        """Runs to the end; `progress` hears of (t, total) after every temperature."""
        while self.t < self.total:
            self.step()
            if progress:
                progress(self.t, self.total)
        return self.result()

    def result(self) -> Estimate:
        """What the run found. Raises ValueError before its end."""
        if self.t < self.total:
            raise ValueError(f"the run is at temperature {self.t} of {self.total}")
        upper = self._lower[:0]
        if self._simulated:
            upper = -log_mean_exp(self._now.log_w.view(-1, self.chains))
            # a code of probability 0 cannot have made its image: nothing bounds it from above
            upper = torch.where(upper.isfinite(), upper, math.inf)
        trajectories = (self._given + 2 * self._simulated) * self.chains * (self.temperatures - 2)
        lower = self._lower.cpu().numpy()
        return Estimate(
            lower[: self._given],
            lower[self._given :],
            upper.cpu().numpy(),
            float(self._accepted) / trajectories if trajectories else math.nan,
        )

    def state(self) -> dict[str, Tensor]:
        """All that changes from step to step, copied to the CPU, as safetensors takes it."""
        tensors = {
            "arguments": torch.tensor(self._arguments()),
            "t": torch.tensor(self.t),
            "accepted": self._accepted,
            "lower": self._lower,
            "steps": self._steps,
            **vars(self._now),
        }
        return {name: tensor.to("cpu", copy=True) for name, tensor in tensors.items()}

    def load(self, state: dict[str, Tensor]) -> None:
        """Goes on where `state` was taken. Raises ValueError if that was in another run."""
        if state["arguments"].tolist() != self._arguments():
            raise ValueError(
                "state of a run with (seed, temperatures, chains, leapfrog, given, simulated) = "
                f"{state['arguments'].tolist()}; allowed: {self._arguments()}"
            )
        here = {name: tensor.to(self.model.device, copy=True) for name, tensor in state.items()}
        del here["arguments"]
        t, self._accepted = int(here.pop("t")), here.pop("accepted")
        self._lower, self._steps = here.pop("lower"), here.pop("steps")
        if t >= self.temperatures - 1 and self._simulated:
            self._turn()
        self.t, self._now = t, _Chains(**here)

    def _arguments(self) -> list[int]:
        sizes = [self.temperatures, self.chains, self.leapfrog, self._given, self._simulated]
        return [self.seed, *sizes]

    def _draw(self, t: int) -> tuple[Tensor, Tensor]:
        """Of all rows: N(0, 1) of (rows, d) and logs of uniforms (rows,)."""
        drawn = [draw(self.seed, place, t, self.chains, self.model.d) for place in self._places]
        normal, uniform = (
            torch.from_numpy(np.concatenate(parts)) for parts in zip(*drawn, strict=True)
        )
        device, dtype = self.model.device, self.model.dtype
        return normal.to(device, dtype), uniform.log().to(device, dtype)

    def _start(self, x: Tensor, u: Tensor) -> None:
        """Chains of weight 1 for images x (n, p) at u (rows, d)."""
        self._x = x
        parts = [value_and_slope(self.model, u[rows], x_rows) for rows, x_rows in self._cut()]
        log_lik, slope = (torch.cat(part) for part in zip(*parts, strict=True))
        log_w = torch.zeros_like(log_lik, dtype=torch.float64)
        each = torch.ones_like(log_lik[:: self.chains])
        self._now = _Chains(u, log_lik, slope, log_w, START * each, TARGET * each)

    def _turn(self) -> None:
        """From here backwards: every chain of a simulated image starts at the code behind it."""
        self._places = [(REVERSE, i) for i in range(self._simulated)]
        u = torch.cat(self._codes).repeat_interleave(self.chains, 0)
        self._start(self.simulated_images, u)

    def _cut(self) -> Iterator[tuple[slice, Tensor]]:
        """Rows that go through the decoder together, and the image of each."""
        n = len(self._x) * self.chains
        for start in range(0, n, self.batch):
            rows = slice(start, min(start + self.batch, n))
            yield rows, self._x[torch.arange(rows.start, rows.stop) // self.chains]

    def _move(self, t: int, forward: bool) -> None:
        """One trajectory of every chain at temperature t; forward, the next step sizes too."""
        now = self._now
        if forward:
            self._steps[t] = now.step_size[self._given :]
        else:
            now.step_size = self._steps[t]
        momentum, log_uniform = self._draw(t)
        step_size = now.step_size.repeat_interleave(self.chains)[:, None]
        parts = [
            trajectory(
                self.model,
                x_rows,
                self._beta[t],
                self.leapfrog,
                step_size[rows],
                (now.u[rows], now.log_lik[rows], now.slope[rows]),
                momentum[rows],
                log_uniform[rows],
            )
            for rows, x_rows in self._cut()
        ]
        now.u, now.log_lik, now.slope, accepted = (
            torch.cat(part) for part in zip(*parts, strict=True)
        )
        self._accepted += accepted.sum()
        if forward:
            faster, slower = FASTER * now.step_size, SLOWER * now.step_size
            adapted = torch.where(now.rate > TARGET, faster, slower)
            now.step_size = adapted.clamp(MIN_STEP, MAX_STEP)
            share = accepted.view(-1, self.chains).to(now.rate).mean(-1)
            now.rate = MEMORY * now.rate + (1 - MEMORY) * share


def log_likelihood(model: LatentModel, x: Tensor, **settings: Any) -> Estimate:
    """Returns lower bounds of log p(x) for images x (n, p); settings as of `AnnealedRun`."""
    return AnnealedRun(model, x, **settings).finish()
