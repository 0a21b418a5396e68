"""Estimates log p(x) of a decoder by annealed importance sampling (AIS) and checks the estimate.

Chains move from the prior to the posterior of one image through f_t(u) = N(u; 0, I) p(x|u)^beta_t
(Neal 2001). Each beta has one Hamiltonian trajectory, as in Wu et al. 2017, *On the Quantitative
Analysis of Decoder-Based Generative Models*, and in its code, eval_gen. The mean weight over chains
is unbiased for p(x), so its logarithm is a stochastic lower bound.

The code behind a simulated image is an exact sample of the image's posterior. Chains that run
backwards from this code have inverse weights whose mean is unbiased for 1 / p(x). Minus the
logarithm of this mean is a stochastic upper bound. Chains of one image may share their start,
because a mean of dependent terms is unbiased too. Upper minus lower bound is the gap of
bidirectional Monte Carlo (BDMC; Grosse, Ghahramani & Adams 2015).

Two things differ from eval_gen. Each image adapts its own step size, so no image's value depends
on other images. Backward chains replay the forward step sizes in reverse order, so their kernels
do not depend on their own past. Forward kernels do depend on it, which may bias the lower bound.

No library that the suite uses has AIS. Every random number is a function of seed, image and
temperature, and of no generator's past.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.data.ahead import ahead
from bench.scores.latent import LatentModel, log_mean_exp, trajectory, value_and_slope

TARGET, MEMORY = 0.65, 0.9
FASTER, SLOWER = 1.02, 0.98
MIN_STEP, MAX_STEP = 1e-4, 0.5
"""eval_gen multiplies the step size by 1.02 or 0.98, towards a mean acceptance of .65."""
START = 0.1  # the first step size, which is larger than eval_gen's .01
BATCH = {"cpu": 512, "cuda": 8192}
"""The decoder takes at most so many chains in one call, by type of device."""

GIVEN, SIMULATED, REVERSE, MODEL = range(4)
"""A random number serves forward chains of either kind of image, backward chains, or an image."""

Place = tuple[int, int]  # a purpose of random numbers, and the number of an image


def schedule(temperatures: int) -> list[float]:
    """Returns beta from 0 to 1, both included: a scaled sigmoid over [-4, 4] (Wu et al. 2017).

    Raises ValueError for fewer than 2 temperatures.
    """
    if temperatures < 2:
        raise ValueError(f"temperatures is {temperatures}; allowed: 2 or more")
    gamma = 1 / (1 + np.exp(-np.linspace(-4, 4, temperatures)))
    return ((gamma - gamma[0]) / (gamma[-1] - gamma[0])).tolist()


def _random(seed: int, place: Place, t: int) -> np.random.Generator:
    """Returns the generator of one image at one temperature, from a counter-based stream."""
    return np.random.Generator(np.random.Philox(key=[seed, 0], counter=[0, t, *place]))


def draw(seed: int, place: Place, t: int, chains: int, d: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns N(0, 1) of (chains, d) for positions or momenta, and uniforms (chains,)."""
    rng = _random(seed, place, t)
    return rng.standard_normal((chains, d)), rng.random(chains)


def _draws(
    turns: Iterable[tuple[list[Place], int]], seed: int, chains: int, d: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields N(0, 1) of (rows, d) and uniforms (rows,) for the images and temperature of a turn."""
    for places, t in turns:
        drawn = [draw(seed, place, t, chains, d) for place in places]
        normal, uniform = (np.concatenate(parts) for parts in zip(*drawn, strict=True))
        yield normal, uniform


def _simulated(model: LatentModel, seed: int, i: int) -> tuple[Tensor, Tensor]:
    """Returns image i (1, p), which the model simulates, and the code (1, d) behind it."""
    rng = _random(seed, (MODEL, i), 0)
    u = torch.from_numpy(rng.standard_normal((1, model.d))).to(model.device, model.dtype)
    generator = torch.Generator().manual_seed(int(rng.integers(2**63)))
    with torch.no_grad():
        return model.simulate(u, generator), u


@dataclass(frozen=True)
class Estimate:
    """Holds bounds in nats, float64, one for each image.

    `log_likelihood` (n,) bounds log p(x) of given images from below. `lower` and `upper` (m,) bound
    log p(x) of simulated images; `upper` is inf if it failed. `acceptance` is the mean over all
    trajectories.
    """

    log_likelihood: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    acceptance: float


def mean_and_se(values: np.ndarray) -> tuple[float, float]:
    """Returns the mean over images and its standard error.

    The mean of no image is nan. The standard error is nan for one image, or if a value is infinite.
    """
    mean = float(values.mean()) if len(values) else math.nan
    if len(values) < 2 or not np.isfinite(values).all():
        return mean, math.nan
    return mean, float(values.std(ddof=1) / math.sqrt(len(values)))


@dataclass
class _State:
    """Holds what one temperature hands to the next. An image's chains are neighbouring rows."""

    accepted: Tensor  # (), float64: how many trajectories moved
    lower: Tensor  # (images,): the lower bound, known from beta = 1 on
    steps: Tensor  # (temperatures, simulated): the forward step sizes
    u: Tensor  # (rows, d)
    log_lik: Tensor  # (rows,): log p(x|u)
    slope: Tensor  # (rows, d): its gradient
    log_w: Tensor  # (rows,), float64: log of the weight, or of its inverse for backward chains
    step_size: Tensor  # (images,)
    rate: Tensor  # (images,): running mean of acceptance


class AnnealedRun:
    """Runs AIS on given images and BDMC on simulated images, a temperature at a time.

    All images run forward as one batch, then simulated images run backward. `t` of `total` steps
    are made. `state` and `load` carry a run over to another process; on a CPU the run ends with the
    same bits. The caller ensures that model and x are the same. `lower` and `upper` of the result
    are about `simulated_images` (m, p).
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
        """Takes given images x (n, p), a number of simulated images and the most chains in a call.

        Raises ValueError for a number that is too small, or if there is no image.
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
        self._forward = [(GIVEN, i) for i in range(self._given)]
        self._forward += [(SIMULATED, i) for i in range(simulated)]
        self._reverse = [(REVERSE, i) for i in range(simulated)]
        drawn = [_simulated(model, seed, i) for i in range(simulated)]
        given = [] if x is None else [x.to(model.device, model.dtype)]
        self._images = torch.cat([*given, *(image for image, _ in drawn)])
        self._codes = [u for _, u in drawn]
        self.simulated_images = self._images[self._given :]
        self.t, self.total = 0, self._last * (2 if simulated else 1)
        accepted = torch.zeros((), dtype=torch.float64, device=model.device)
        lower = accepted.new_zeros(len(self._images))
        steps = self._images.new_zeros((temperatures, simulated))
        self._image = torch.arange(len(self._images), device=model.device)
        self._image = self._image.repeat_interleave(chains)  # of every forward chain
        (first,) = _draws([(self._forward, 0)], seed, chains, model.d)
        self._now = _State(accepted, lower, steps, **self._start(self._here(first[0])))
        self._drawn = self._draws_from(0)

    def step(self) -> None:
        """Goes to the next temperature: weighs every chain, then moves it by one trajectory."""
        last, now = self._last, self._now
        i, to = self.t, self.t + 1
        if self._backward:
            i, to = 2 * last - i, 2 * last - to
        now.log_w += (self._beta[to] - self._beta[i]) * now.log_lik
        if 0 < to < last:  # the weights are complete at 0 and 1
            self._move(to)
        self.t += 1
        if self.t == last:
            now.lower = log_mean_exp(now.log_w.view(-1, self.chains))
            if self._simulated:  # backward chains start at the code behind their image
                codes = torch.cat(self._codes).repeat_interleave(self.chains, 0)
                self._now = replace(now, **self._start(codes))

    def finish(self, progress: Callable[[int, int], None] | None = None) -> Estimate:
        """Runs to the end and returns the bounds; calls `progress(t, total)` after every step."""
        while self.t < self.total:
            self.step()
            if progress:
                progress(self.t, self.total)
        upper = -log_mean_exp(self._now.log_w.view(-1, self.chains))[: self._simulated]
        # A code of probability 0 cannot have made its image, so there is no upper bound.
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
        """Returns all that changes from step to step, copied to the CPU for safetensors."""
        numbers = {"arguments": torch.tensor(self._arguments), "t": torch.tensor(self.t)}
        tensors = numbers | vars(self._now)
        return {name: tensor.to("cpu", copy=True) for name, tensor in tensors.items()}

    def load(self, state: dict[str, Tensor]) -> None:
        """Goes on from a `state`. Raises ValueError if another run made the state."""
        if state["arguments"].tolist() != self._arguments:
            raise ValueError(
                "the state's run has (seed, temperatures, chains, leapfrog, given, simulated) = "
                f"{state['arguments'].tolist()}; allowed: {self._arguments}"
            )
        here = {name: state[name].to(self.model.device, copy=True) for name in vars(self._now)}
        self.t, self._now = int(state["t"]), _State(**here)
        self._drawn = self._draws_from(self.t)

    @property
    def _backward(self) -> bool:
        return self.t >= self._last

    def _draws_from(self, step: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Returns the random numbers of each trajectory from this step on, see `_draws`.

        A GPU does not wait for them: a thread draws the next numbers meanwhile.
        """
        last = self._last
        turns = [(self._forward, t) for t in range(step + 1, last)]
        if self._reverse:
            turns += [(self._reverse, t) for t in range(2 * last - max(step, last) - 1, 0, -1)]
        draws = _draws(turns, self.seed, self.chains, self.model.d)
        return draws if self._images.device.type == "cpu" else ahead(draws)

    def _here(self, numbers: np.ndarray | Tensor) -> Tensor:
        like = self._images
        return torch.as_tensor(numbers).to(like.device, like.dtype, non_blocking=True)

    def _start(self, u: Tensor) -> dict[str, Tensor]:
        """Returns the part of a `_State` about chains, of weight 1 and at u (rows, d)."""
        log_lik, slope = self._in_parts(lambda x, u: value_and_slope(self.model, u, x), u)
        log_w = torch.zeros_like(log_lik, dtype=torch.float64)
        each = torch.ones_like(log_lik[:: self.chains])
        chains = {"u": u, "log_lik": log_lik, "slope": slope, "log_w": log_w}
        return chains | {"step_size": START * each, "rate": TARGET * each}

    def _in_parts(self, function: Callable[..., tuple[Tensor, ...]], *rows: Tensor) -> list[Tensor]:
        """Calls the function with images and rows, `batch` at a time, and joins what it returns."""
        x = self.simulated_images if self._backward else self._images
        image = self._image[: len(x) * self.chains]
        batches = zip(*(each.split(self.batch) for each in (image, *rows)), strict=True)
        parts = [function(x[image], *some) for image, *some in batches]
        return [torch.cat(part) for part in zip(*parts, strict=True)]

    def _move(self, t: int) -> None:
        """Moves every chain by one trajectory at temperature t and adapts forward step sizes."""
        now, beta = self._now, self._beta[t]
        normal, uniform = next(self._drawn)
        if self._backward:
            now.step_size = now.steps[t]
        else:
            now.steps[t] = now.step_size[self._given :]
        now.u, now.log_lik, now.slope, accepted = self._in_parts(
            lambda x, *rows: trajectory(self.model, x, beta, self.leapfrog, *rows),
            now.step_size.repeat_interleave(self.chains)[:, None],
            *(now.u, now.log_lik, now.slope),
            self._here(normal),
            self._here(torch.from_numpy(uniform).log()),
        )
        now.accepted += accepted.sum()
        if not self._backward:
            faster, slower = FASTER * now.step_size, SLOWER * now.step_size
            adapted = torch.where(now.rate > TARGET, faster, slower)
            now.step_size = adapted.clamp(MIN_STEP, MAX_STEP)
            share = accepted.view(-1, self.chains).to(now.rate).mean(-1)
            now.rate = MEMORY * now.rate + (1 - MEMORY) * share


def log_likelihood(model: LatentModel, x: Tensor, **settings: Any) -> Estimate:
    """Returns lower bounds of log p(x) for images x (n, p); `AnnealedRun` explains settings."""
    return AnnealedRun(model, x, **settings).finish()
