"""The toy study's networks are many perceptrons of one shape, stacked in one tensor program.

Tensors hold features before the batch, (n, features, batch). The batch is last, because vector
instructions then fit the thin products at a network's ends too (1 to 4 features).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np
import torch
from torch import Tensor

from models import products
from models.products import Layers


@dataclass(frozen=True)
class Shape:
    """Describes a ReLU perceptron: `depth` hidden layers of `width` units, and linear output."""

    d_in: int
    depth: int
    width: int
    d_out: int

    @property
    def layers(self) -> list[tuple[int, int]]:
        """The inputs and outputs of every linear layer."""
        return list(pairwise([self.d_in, *[self.width] * self.depth, self.d_out]))


def xavier(shape: Shape, rng: np.random.Generator) -> list[np.ndarray]:
    """Returns initial weight matrices (outputs, inputs), float64 (Glorot & Bengio 2010, eq. 16).

    Biases start at 0 and are not part of the list.
    """
    return [
        rng.uniform(-1, 1, (d_out, d_in)) * np.sqrt(6 / (d_in + d_out))
        for d_in, d_out in shape.layers
    ]


Weights = Sequence[np.ndarray]


class _Perceptrons(torch.autograd.Function):
    """Applies a bank's networks to its batches, and differentiates them by hand.

    The gradient of `parameters` is added to `gradient`, memory that stays. Autograd's own graph
    would make new tensors for it in every step.
    """

    @staticmethod
    def forward(
        ctx,
        x: Tensor,
        parameters: Tensor,
        layers: Layers,
        gradient: Layers,
        factors: Tensor | None,
    ) -> Tensor:
        inputs, out = products.forward(layers, x, any(ctx.needs_input_grad), factors)
        ctx.save_for_backward(*inputs)
        ctx.layers, ctx.gradient, ctx.factors = layers, gradient, factors
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g: Tensor) -> tuple[Tensor | None, ...]:
        want_x, want_parameters, *_ = ctx.needs_input_grad
        gradient = ctx.gradient if want_parameters else None
        g_x = products.backward(ctx.layers, ctx.saved_tensors, g, gradient, want_x, ctx.factors)
        return g_x, None, None, None, None


class Bank:
    """Applies n networks of one shape, each to its own batch.

    `parameters` (n, p) has W and b of each layer in turn, with a row for each network, so an
    optimiser makes few calls. Zeros between layers, if any, stay zeros. `layers` are its views,
    (n, outputs, inputs) and (n, outputs, 1). A backward pass adds to `gradient` (n, p), which is
    `parameters.grad`. Set it to zero; another tensor in its place gets nothing.
    """

    def __init__(
        self, shape: Shape, weights: Sequence[Weights], device: torch.device, dtype: torch.dtype
    ) -> None:
        """Takes as `weights[i]` the matrices of network i, as `xavier` draws them."""
        self.n, self.shape = len(weights), shape
        step = products.alignment(device, dtype)
        # Where the weights of each layer begin in a row, and where the next row begins.
        sizes = [d_out * (d_in + 1) for d_in, d_out in shape.layers]
        *self._starts, size = accumulate((-(-size // step) * step for size in sizes), initial=0)
        self.parameters = torch.zeros(self.n, size, device=device, dtype=dtype)
        self.layers = self._views(self.parameters)
        for i, (w, *_) in enumerate(self.layers):
            w.copy_(torch.from_numpy(np.stack([network[i] for network in weights])))
        self._frozen = self.parameters.detach()
        self.parameters.requires_grad_()
        self.parameters.grad = self.gradient = torch.zeros_like(self._frozen)
        self._gradients = self._views(self.gradient)

    def _views(self, parameters: Tensor) -> Layers:
        """Returns W and b of each layer in rows (n, p) of parameters or of their gradient."""
        views = []
        for (d_in, d_out), start in zip(self.shape.layers, self._starts, strict=True):
            middle, end = start + d_out * d_in, start + d_out * (d_in + 1)
            w = parameters[:, start:middle].unflatten(1, (d_out, d_in))
            views.append(products.layer(w, parameters[:, middle:end].unsqueeze(2)))
        return views

    def __call__(self, x: Tensor, frozen: bool = False, factors: Tensor | None = None) -> Tensor:
        """Returns (n, d_out, batch) of (n, d_in, batch); `frozen` parameters get no gradient.

        `factors` (n, depth, width, batch), at least 0, multiply the hidden units: dropout.
        """
        parameters = self._frozen if frozen else self.parameters
        return _Perceptrons.apply(x, parameters, self.layers, self._gradients, factors)


Factors = Sequence[Tensor] | None
"""Factors of hidden units for each bank of a group, see `Bank`, or None without dropout."""


Trio = tuple[Shape, Shape, Shape]  # encoder, decoder and critic of one model


def draw(shapes: Trio, rng: np.random.Generator) -> list[Weights]:
    """Returns initial weights of one model: encoder, then decoder, then critic, see `xavier`."""
    return [xavier(shape, rng) for shape in shapes]


class Group:
    """Applies networks of any shapes in one call: slice i of the input goes to network i.

    Networks of equal shape share a `Bank`, whichever models they belong to. `members[k]` lists the
    networks in bank k.
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

    def __call__(self, x: Tensor, frozen: bool = False, factors: Factors = None) -> Tensor:
        """Returns (n, d_out, batch) of (n, d_in, batch); `frozen` parameters get no gradient."""
        each = factors or [None] * len(self.banks)
        if len(self.banks) == 1:
            return self.banks[0](x, frozen, each[0])
        parts = x.index_select(0, self._order).split([bank.n for bank in self.banks])
        banks = zip(self.banks, parts, each, strict=True)
        outputs = [bank(part, frozen, own) for bank, part, own in banks]
        return torch.cat(outputs).index_select(0, self._inverse)

    def network(self, i: int) -> list[tuple[Tensor, Tensor]]:
        """Returns views of the parameters of network i, W (out, in) and b (out,) of each layer."""
        found = next(k for k, members in enumerate(self.members) if i in members)
        row = self.members[found].index(i)
        return [(w[row].detach(), b[row, :, 0].detach()) for w, b, *_ in self.banks[found].layers]


class ToyNetworks:
    """Applies m implicit encoders z = h(x, eps), decoders x = g(z, eps) and critics f(x, z).

    Encoders and decoders have the same number of inputs and outputs, so they share one group.
    Network i is the encoder of model i, network m + i its decoder.
    """

    def __init__(
        self,
        shapes: Sequence[Trio],
        weights: Sequence[Sequence[Weights]],
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        """Takes as `weights[i]` what `draw` gives for the shapes of model i."""
        self.m = len(shapes)
        each = (zip(*of_model, strict=True) for of_model in zip(shapes, weights, strict=True))
        encoders, decoders, critics = zip(*each, strict=True)
        self.coders = Group(encoders + decoders, device, dtype)
        self.critics = Group(critics, device, dtype)

    def weights(self, i: int) -> dict[str, Tensor]:
        """Returns views of the parameters of model i: encoder, decoder, critic.

        Names and shapes are those of a `torch.nn.Sequential` of Linear and ReLU for each network:
        encoder.0.weight (out, in), encoder.0.bias (out,), encoder.2.weight, ...
        """
        networks = {
            "encoder": self.coders.network(i),
            "decoder": self.coders.network(self.m + i),
            "critic": self.critics.network(i),
        }
        return {
            f"{role}.{2 * k}.{name}": tensor
            for role, layers in networks.items()
            for k, layer in enumerate(layers)
            for name, tensor in zip(("weight", "bias"), layer, strict=True)
        }

    def load(self, i: int, weights: Mapping[str, Tensor]) -> None:
        """Copies the `weights` of another stack's model to model i.

        Raises ValueError for weights of other networks.
        """
        own = self.weights(i)
        if {n: t.shape for n, t in own.items()} != {n: t.shape for n, t in weights.items()}:
            raise ValueError("weights of other networks")
        for name, tensor in own.items():
            tensor.copy_(weights[name])

    def code(
        self, x: Tensor, z: Tensor, eps: Tensor, factors: Factors = None
    ) -> tuple[Tensor, Tensor]:
        """Returns codes of x and samples from z: z_x, x_z of (m, 2, batch), like x and z.

        `eps` (2 m, 2, batch) is the noise of the encoders, then of the decoders.
        """
        inputs = torch.cat([torch.cat([x, z]), eps], 1)
        z_x, x_z = self.coders(inputs, factors=factors).split(self.m)
        return z_x, x_z

    def logits(
        self,
        x: Tensor,
        z_x: Tensor,
        x_z: Tensor,
        z: Tensor,
        frozen: bool = False,
        factors: Factors = None,
    ) -> tuple[Tensor, Tensor]:
        """Returns f on encoder pairs (x, z_x) and decoder pairs (x_z, z), (m, batch) each."""
        pairs = torch.cat([torch.cat([x, z_x], 1), torch.cat([x_z, z], 1)], 2)
        f_q, f_p = self.critics(pairs, frozen, factors).squeeze(1).split(x.shape[2], 1)
        return f_q, f_p
