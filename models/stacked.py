"""The toy study's networks with a stack axis: many perceptrons of one shape as one tensor program.

Tensors hold features before the batch, (n, features, batch). With the batch last, the thin
products at a network's ends (2 to 4 features) run 3 to 10 times faster on a CPU than with the
features last, where they cost as much as a whole hidden layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

_ALIGN = 64
"""Every row of parameters is a multiple of this many numbers long, so that vector instructions
never reach a remainder whose rounding depends on who else is in the stack."""


@dataclass(frozen=True)
class Shape:
    """A ReLU multilayer perceptron: `depth` hidden layers of `width` units, linear output."""

    d_in: int
    depth: int
    width: int
    d_out: int

    @property
    def layers(self) -> list[tuple[int, int]]:
        """(inputs, outputs) of every linear layer."""
        return list(pairwise([self.d_in, *[self.width] * self.depth, self.d_out]))


def xavier(shape: Shape, rng: np.random.Generator) -> list[np.ndarray]:
    """Initial weight matrices (outputs, inputs), float64: uniform, Glorot & Bengio 2010, eq. 16.

    Biases start at 0 and are not part of the list.
    """
    return [
        rng.uniform(-1, 1, (d_out, d_in)) * np.sqrt(6 / (d_in + d_out))
        for d_in, d_out in shape.layers
    ]


Weights = Sequence[np.ndarray]
Layers = list[tuple[Tensor, Tensor]]


class _Perceptrons(torch.autograd.Function):
    """n perceptrons on n batches, differentiated by hand.

    `layers` are views of `parameters` (W and b of each layer in turn, see `Bank`), which stand in
    the arguments to receive the gradient. Autograd's own graph of the same products is about a
    tenth slower at widths 32 and 64: it can't rectify gradients in place.
    """

    @staticmethod
    def forward(ctx, x: Tensor, layers: Layers, *parameters: Tensor) -> Tensor:
        inputs = [x]
        for w, b in layers[:-1]:
            inputs.append(torch.baddbmm(b, w, inputs[-1]).relu_())
        w, b = layers[-1]
        ctx.save_for_backward(*inputs)
        ctx.layers = layers
        return torch.baddbmm(b, w, inputs[-1])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g: Tensor) -> tuple[Tensor | None, ...]:
        inputs, layers = ctx.saved_tensors, ctx.layers
        want_x, want_parameters = ctx.needs_input_grad[0], ctx.needs_input_grad[-1]
        grads: list[Tensor | None] = [None] * (2 * len(layers))
        for i in reversed(range(len(layers))):
            if want_parameters:
                # The product whose rows are long: (inputs, outputs) for the thin first layer.
                w_grad = torch.bmm(g, inputs[i].mT) if i else torch.bmm(inputs[i], g.mT).mT
                grads[2 * i : 2 * i + 2] = _row(w_grad), _row(g.sum(2))
            if i:
                g = torch.bmm(layers[i][0].mT, g)
                torch.ops.aten.threshold_backward.grad_input(g, inputs[i], 0, grad_input=g)
        return torch.bmm(layers[0][0].mT, g) if want_x else None, None, *grads


def _row(tensor: Tensor) -> Tensor:
    """(n, ...) as (n, p), filled up with zeros to a multiple of _ALIGN."""
    row = tensor.reshape(len(tensor), -1)
    missing = -row.shape[1] % _ALIGN
    return pad(row, (0, missing)) if missing else row


class Bank:
    """n networks of one shape, each applied to its own batch.

    `parameters` are W and b of each layer in turn, a row a network, so that an optimiser is a few
    calls whatever n is; `layers` are views of them, (rows, outputs, inputs) and (rows, outputs, 1).

    A bank of one is padded with an idle copy: batched products of two or more networks give each
    of them the same bits wherever it stands, a single product takes another route to the sum.
    """

    def __init__(
        self, shape: Shape, weights: Sequence[Weights], device: torch.device, dtype: torch.dtype
    ) -> None:
        """`weights[i]` is the list of matrices of network i, as `xavier` draws it."""
        self.n = len(weights)
        rows = max(self.n, 2)
        self.parameters: list[Tensor] = []
        self.layers: Layers = []
        for i, (d_in, d_out) in enumerate(shape.layers):
            matrices = np.stack([weights[k % self.n][i] for k in range(rows)])
            w = _row(torch.from_numpy(matrices).to(device, dtype))
            b = _row(torch.zeros(rows, d_out, device=device, dtype=dtype))
            self.parameters += [w, b]
            self.layers.append(
                (w[:, : d_in * d_out].unflatten(1, (d_out, d_in)), b[:, :d_out].unsqueeze(2))
            )
        self._frozen = [parameter.detach() for parameter in self.parameters]
        for parameter in self.parameters:
            parameter.requires_grad_()

    def __call__(self, x: Tensor, frozen: bool = False) -> Tensor:
        """(n, d_in, batch) -> (n, d_out, batch); `frozen` parameters get no gradient."""
        parameters = self._frozen if frozen else self.parameters
        if self.n > 1:
            return _Perceptrons.apply(x, self.layers, *parameters)
        return _Perceptrons.apply(x.expand(2, -1, -1), self.layers, *parameters)[:1]


D_X = D_Z = D_EPS = 2
"""Dimensions of data, code and injected noise in the toy study (ALICE's toy script)."""


Trio = tuple[Shape, Shape, Shape]


def toy_shapes(encoder: tuple[int, int], decoder: tuple[int, int], critic: tuple[int, int]) -> Trio:
    """Encoder, decoder and critic of one model, from (depth, width) of each."""
    return (
        Shape(D_X + D_EPS, *encoder, D_Z),
        Shape(D_Z + D_EPS, *decoder, D_X),
        Shape(D_X + D_Z, *critic, 1),
    )


class Group:
    """Networks of any shapes behind one call: slice i of the input goes to network i.

    Networks of equal shape share a `Bank`, whichever models they belong to. `members[k]` lists
    the networks in bank k.
    """

    def __init__(
        self, networks: Sequence[tuple[Shape, Weights]], device: torch.device, dtype: torch.dtype
    ) -> None:
        by_shape: dict[Shape, list[int]] = {}
        for i, (shape, _) in enumerate(networks):
            by_shape.setdefault(shape, []).append(i)
        self.members = list(by_shape.values())
        self.banks = [
            Bank(shape, [networks[i][1] for i in members], device, dtype)
            for shape, members in by_shape.items()
        ]
        self._order = torch.from_numpy(np.concatenate(self.members)).to(device)
        self._inverse = self._order.argsort()

    def __call__(self, x: Tensor, frozen: bool = False) -> Tensor:
        """(n, d_in, batch) -> (n, d_out, batch); `frozen` parameters get no gradient."""
        if len(self.banks) == 1:
            return self.banks[0](x, frozen)
        parts = x.index_select(0, self._order).split([bank.n for bank in self.banks])
        outputs = [bank(part, frozen) for bank, part in zip(self.banks, parts, strict=True)]
        return torch.cat(outputs).index_select(0, self._inverse)

    def network(self, i: int) -> Tensor:
        """All parameters of network i in one row, detached: W and b of each layer in turn."""
        found = next(k for k, members in enumerate(self.members) if i in members)
        row = self.members[found].index(i)
        return torch.cat([t[row].flatten() for layer in self.banks[found].layers for t in layer])


class ToyNetworks:
    """Implicit encoder z = h(x, eps), decoder x = g(z, eps) and joint critic f(x, z).

    m models side by side. Encoders and decoders have the same number of inputs and outputs, so
    they share one group: network i is the encoder of model i, network m + i its decoder.
    """

    def __init__(
        self,
        shapes: Sequence[Trio],
        rngs: Sequence[np.random.Generator],
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        """`rngs[i]` draws the initial weights of model i: encoder, then decoder, then critic."""
        self.m = len(shapes)
        drawn = [
            [(shape, xavier(shape, rng)) for shape in trio]
            for trio, rng in zip(shapes, rngs, strict=True)
        ]
        encoders, decoders, critics = zip(*drawn, strict=True)
        self.coders = Group(encoders + decoders, device, dtype)
        self.critics = Group(critics, device, dtype)

    def code(self, x: Tensor, z: Tensor, eps: Tensor) -> tuple[Tensor, Tensor]:
        """Codes of x and samples from z: z_x, x_z of (m, 2, batch), like x and z.

        `eps` (2 m, 2, batch) is the noise joined to the encoders' inputs, then the decoders'.
        """
        out = self.coders(torch.cat([torch.cat([x, z]), eps], 1))
        return out[: self.m], out[self.m :]

    def logits(
        self, x: Tensor, z_x: Tensor, x_z: Tensor, z: Tensor, frozen: bool = False
    ) -> tuple[Tensor, Tensor]:
        """f on encoder pairs (x, z_x) and decoder pairs (x_z, z): f_q, f_p of (m, batch)."""
        pairs = torch.cat([torch.cat([x, z_x], 1), torch.cat([x_z, z], 1)], 2)
        f = self.critics(pairs, frozen).squeeze(1)
        return f[:, : x.shape[2]], f[:, x.shape[2] :]
