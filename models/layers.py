"""Multilayer perceptrons with a stack axis: many networks of one shape as one tensor program.

Tensors hold features before the batch, (n, features, batch). With the batch last, the thin
products at a network's ends (2 to 4 features) run 3 to 10 times faster on a CPU than with the
features last, where they cost as much as a whole hidden layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

_ALIGN = 64
"""Every tensor of a network starts at a multiple of this many numbers, so that vector
instructions never reach a remainder whose rounding depends on who else is in the stack."""


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
        sizes = [self.d_in, *[self.width] * self.depth, self.d_out]
        return list(pairwise(sizes))

    @cached_property
    def spans(self) -> list[tuple[int, int, int, int]]:
        """Where each layer lies in a row of parameters: (start of W, its end, start of b, end)."""
        spans, start = [], 0
        for d_in, d_out in self.layers:
            bias = start + _aligned(d_in * d_out)
            spans.append((start, start + d_in * d_out, bias, bias + d_out))
            start = bias + _aligned(d_out)
        return spans

    @property
    def row(self) -> int:
        """Length of a row of parameters."""
        return _aligned(self.spans[-1][3])

    def split(self, flat: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Rows of parameters (n, row) as views (n, outputs, inputs), (n, outputs, 1) a layer."""
        return [
            (flat[:, w:w_end].unflatten(1, (d_out, d_in)), flat[:, b:b_end].unsqueeze(2))
            for (d_in, d_out), (w, w_end, b, b_end) in zip(self.layers, self.spans, strict=True)
        ]


def _aligned(size: int) -> int:
    return -(-size // _ALIGN) * _ALIGN


def xavier(shape: Shape, rng: np.random.Generator) -> list[np.ndarray]:
    """Initial weight matrices (outputs, inputs), float64: uniform, Glorot & Bengio 2010, eq. 16.

    Biases start at 0 and are not part of the list.
    """
    return [
        rng.uniform(-1, 1, (d_out, d_in)) * np.sqrt(6 / (d_in + d_out))
        for d_in, d_out in shape.layers
    ]


Layers = list[tuple[Tensor, Tensor]]


class _Perceptrons(torch.autograd.Function):
    """n perceptrons on n batches, differentiated by hand.

    `layers` are views of `flat`, which stands in the arguments to receive the gradient. Autograd's
    own graph of the same products is about a tenth slower at widths 32 and 64: it keeps each
    layer's parameters as a leaf of its own and can't rectify gradients in place.
    """

    @staticmethod
    def forward(ctx, x: Tensor, flat: Tensor, layers: Layers) -> Tensor:
        inputs = [x]
        for w, b in layers[:-1]:
            inputs.append(torch.baddbmm(b, w, inputs[-1]).relu_())
        w, b = layers[-1]
        ctx.save_for_backward(*inputs)
        ctx.layers = layers
        return torch.baddbmm(b, w, inputs[-1])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        inputs, layers = ctx.saved_tensors, ctx.layers
        want_x, want_flat, _ = ctx.needs_input_grad
        pieces: list[Tensor] = []
        for i in reversed(range(len(layers))):
            w, _ = layers[i]
            if want_flat:
                # The product whose rows are long: (inputs, outputs) for the thin first layer.
                w_grad = torch.bmm(g, inputs[i].mT) if i else torch.bmm(inputs[i], g.mT).mT
                b_grad = g.sum(2)
                w_grad = w_grad.reshape(len(w), -1)
                pieces[:0] = [w_grad, _gap(w_grad), b_grad, _gap(b_grad)]
            if i:
                g = torch.bmm(w.mT, g)
                torch.ops.aten.threshold_backward.grad_input(g, inputs[i], 0, grad_input=g)
        x_grad = torch.bmm(layers[0][0].mT, g) if want_x else None
        return x_grad, torch.cat(pieces, 1) if want_flat else None, None


def _gap(filled: Tensor) -> Tensor:
    """Zeros that fill a row up to where the next tensor starts."""
    return filled.new_zeros(()).expand(len(filled), -filled.shape[1] % _ALIGN)


class Bank:
    """n networks of one shape, each applied to its own batch.

    `flat` (rows, p) holds the parameters, a row a network, so that an optimiser is one call
    whatever n is; `layers` are views of it.

    A bank of one is padded with an idle copy: batched products of two or more networks give each
    of them the same bits wherever it stands, a single product takes another route to the sum.
    """

    def __init__(
        self,
        shape: Shape,
        weights: Sequence[Sequence[np.ndarray]],
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        """`weights[i]` is the list of matrices of network i, as `xavier` draws it."""
        self.shape = shape
        self.n = len(weights)
        rows = max(self.n, 2)
        self.flat = torch.zeros(rows, shape.row, device=device, dtype=dtype)
        self.layers = shape.split(self.flat)
        for i, (w, _) in enumerate(self.layers):
            matrices = np.stack([weights[k % self.n][i] for k in range(rows)])
            w.copy_(torch.from_numpy(matrices))
        self.flat.requires_grad_()

    def __call__(self, x: Tensor, frozen: bool = False) -> Tensor:
        """(n, d_in, batch) -> (n, d_out, batch); `frozen` parameters get no gradient."""
        flat = self.flat.detach() if frozen else self.flat
        if self.n > 1:
            return _Perceptrons.apply(x, flat, self.layers)
        return _Perceptrons.apply(x.expand(2, -1, -1), flat, self.layers)[:1]
