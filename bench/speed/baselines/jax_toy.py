"""Trains a stack of toy models as a JAX user would: one jitted program over all members.

Parameters have a leading axis of members, products run over it, XLA compiles a scan over batches,
and the program draws its own noise. Work is that of the suite's trainer: sVAE-r with its cycle.
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import Any

import jax
from jax import numpy as jnp
from jax import random

from bench.studies.toy_grid.spec import ToySpec

BETAS, EPS = (0.5, 0.999), 1e-8
Array = jax.Array
State = tuple[Any, ...]


def perceptron(key: Array, m: int, depth: int, width: int, d_out: int) -> list[Array]:
    """Returns weights (m, inputs, outputs) by Xavier and biases (m, 1, outputs), in turn."""
    layers = []
    for a, b in pairwise([4, *[width] * depth, d_out]):
        key, own = random.split(key)
        bound = (6 / (a + b)) ** 0.5
        layers += [random.uniform(own, (m, a, b), minval=-bound, maxval=bound)]
        layers += [jnp.zeros((m, 1, b))]
    return layers


def apply(layers: list[Array], *inputs: Array) -> Array:
    """Returns (m, batch, outputs) of inputs (m, batch, ...), which are joined."""
    h = jnp.concatenate(inputs, -1)
    for w, b in zip(layers[:-2:2], layers[1:-2:2], strict=True):
        h = jax.nn.relu(h @ w + b)
    return h @ layers[-2] + layers[-1]


def adam(parameters: Any, gradient: Any, state: State, lr: float) -> tuple[Any, State]:
    """Returns new parameters and a new state by Kingma & Ba 2015, algorithm 1."""
    step, mean, square = state
    step = step + 1
    mean = jax.tree.map(lambda m, g: BETAS[0] * m + (1 - BETAS[0]) * g, mean, gradient)
    square = jax.tree.map(lambda v, g: BETAS[1] * v + (1 - BETAS[1]) * g * g, square, gradient)
    a, b = (1 - beta**step for beta in BETAS)
    moved = jax.tree.map(
        lambda p, m, v: p - lr * (m / a) / (jnp.sqrt(v / b) + EPS), parameters, mean, square
    )
    return moved, (step, mean, square)


def fresh(parameters: Any) -> State:
    zeros = jax.tree.map(jnp.zeros_like, parameters)
    return jnp.zeros(()), zeros, zeros


class JaxTrainer:
    """Trains m members of one spec; `advance` makes all updates of so many batches."""

    def __init__(self, spec: ToySpec, m: int, batches: int = 4) -> None:
        keys = random.split(random.key(0), 6)
        encoder = perceptron(keys[0], m, spec.encoder_depth, spec.encoder_width, 2)
        decoder = perceptron(keys[1], m, spec.decoder_depth, spec.decoder_width, 2)
        critic = perceptron(keys[2], m, spec.critic_depth, spec.critic_width, 1)
        model = encoder, decoder
        self.spec, self.m, self.key = spec, m, keys[3]
        x, z = (random.normal(key, (batches, m, spec.batch, 2)) for key in keys[4:])
        self.data, self.state = (x, z), (model, fresh(model), critic, fresh(critic))
        self.run = jax.jit(partial(jax.lax.scan, self.batch))

    def batch(self, state: State, given: tuple[Array, Array, Array]) -> tuple[State, None]:
        """Makes the updates of one batch: the critic's, then the model's."""
        (model, of_model, critic, of_critic), (x, z, key) = state, given
        spec, size = self.spec, x.shape
        keys = random.split(key)
        for eps in random.normal(keys[0], (spec.critic_steps, 2, *size)):
            codes = apply(model[0], x, eps[0]), apply(model[1], z, eps[1])
            gradient = jax.grad(self.critic_loss)(critic, x, z, *codes)
            critic, of_critic = adam(critic, gradient, of_critic, spec.lr)
        for eps in random.normal(keys[1], (spec.model_steps, 4, *size)):
            gradient = jax.grad(self.model_loss)(model, critic, x, z, eps)
            model, of_model = adam(model, gradient, of_model, spec.lr)
        return (model, of_model, critic, of_critic), None

    def critic_loss(self, critic: list[Array], x: Array, z: Array, z_x: Array, x_z: Array) -> Array:
        f_q, f_p = apply(critic, x, z_x), apply(critic, x_z, z)
        return (jax.nn.softplus(f_q) + jax.nn.softplus(-f_p)).mean((1, 2)).sum()

    def model_loss(self, model: Any, critic: list[Array], x: Array, z: Array, eps: Array) -> Array:
        encoder, decoder = model
        z_x, x_z = apply(encoder, x, eps[0]), apply(decoder, z, eps[1])
        x_rec, z_rec = apply(decoder, z_x, eps[2]), apply(encoder, x_z, eps[3])
        gap = apply(critic, x_z, z).mean((1, 2)) - apply(critic, x, z_x).mean((1, 2))
        error = jnp.square(x - x_rec).mean((1, 2)) + jnp.square(z - z_rec).mean((1, 2))
        return (gap + self.spec.lam * error).sum()

    def advance(self) -> None:
        self.key, own = random.split(self.key)
        keys = random.split(own, len(self.data[0]))
        self.state, _ = jax.block_until_ready(self.run(self.state, (*self.data, keys)))
