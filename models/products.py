"""Computes all layers of many perceptrons, their gradients, and the steps of Adam.

A CPU runs the code of `models.kernels`, network by network. Other devices run torch's products,
layer by layer. Hidden layers have ReLUs.
"""

import ctypes
from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from models.kernels import KERNELS, SCALARS, kernels

T = TypeVar("T")

Place = tuple[int, int, int, int, int, int]
"""Rows, columns and address of a matrix, and how far networks, rows and columns lie apart."""
Product = tuple[str, Place, Place, Place, Place]  # kernel, out, a, b, c


class Layer(NamedTuple):
    """Holds W (n, outputs, inputs) and b (n, outputs, 1) of a layer of n networks.

    Compiled code takes their places, which are not computed anew for every product.
    """

    w: Tensor
    b: Tensor
    of_w: Place
    of_w_transposed: Place
    of_b: Place


def layer(w: Tensor, b: Tensor) -> Layer:
    return Layer(w, b, _place(w), _place(w.mT), _place(b))


Layers = Sequence[Layer]


def alignment(device: torch.device, dtype: torch.dtype) -> int:
    """Returns the number of numbers of which a matrix's place in memory should be a multiple.

    A GPU's fast products read 16 bytes at a time, and caches have lines of 128 bytes.
    """
    return 1 if device.type == "cpu" else 128 // dtype.itemsize


def forward(
    layers: Layers, x: Tensor, keep: bool, factors: Tensor | None = None
) -> tuple[list[Tensor], Tensor]:
    """Returns the inputs of every layer, and the outputs (n, d_out, batch) for x (n, d_in, batch).

    `factors` (n, hidden layers, width, batch), if given, multiply the outputs of hidden layers. On
    a CPU without factors, inputs of hidden layers are scratch memory unless `keep`. The first
    hidden layer's always are: `backward` computes them again, which takes less time than to keep
    them.
    """
    x, last = _in_rows(x), len(layers) - 1
    inputs = [x]
    if not _compiled(x):
        for i, (w, b, *_) in enumerate(layers):
            out = torch.baddbmm(b, w, inputs[i])
            out = out if i == last else out.relu_()
            inputs.append(out if i == last or factors is None else out.mul_(factors[:, i]))
        return inputs[:-1], inputs[-1]
    products, place = [], _place(x)
    for i, (_, _, of_w, _, of_b) in enumerate(layers):
        scratch = factors is None and i < last and (i == 0 or not keep)
        out, of_out = _empty(x, of_w[0], scratch)
        products.append(("affine" if i == last else "rectified", of_out, of_w, place, of_b))
        if factors is not None and i < last:
            _run(products, x)
            products.clear()
            out.mul_(factors[:, i])
        inputs.append(out)
        place = of_out
    _run(products, x)
    return inputs[:-1], inputs[-1]


def backward(
    layers: Layers,
    inputs: Sequence[Tensor],
    g: Tensor,
    gradient: Layers | None,
    want_x: bool,
    factors: Tensor | None = None,
) -> Tensor | None:
    """Adds the gradient of W and b to `gradient` if given, and returns that of x if `want_x`.

    `inputs` are those of every layer, g (n, d_out, batch) is the gradient of the outputs. `inputs`
    and `factors`, which are at least 0, are those of `forward`.
    """
    g = _in_rows(g)
    last_first = range(len(layers) - 1, -1, -1)
    if not _compiled(g):
        for i in last_first:
            if gradient:
                gradient[i].w.baddbmm_(g, inputs[i].mT)
                gradient[i].b.add_(g.sum(2, keepdim=True))
            if i or want_x:
                g = torch.bmm(layers[i].w.mT, g)
                g = torch.ops.aten.threshold_backward(g, inputs[i], 0) if i else g
                g = g if i == 0 or factors is None else g.mul_(factors[:, i - 1])
        return g if want_x else None
    products, places, of_g = [], [_place(each) for each in inputs], _place(g)
    ones = g.new_ones(g.shape[2])
    of_ones = 1, g.shape[2], ones.data_ptr(), 0, 0, 1
    memory = [g]  # places are no tensors: this keeps what they lie in until it is used
    if len(layers) > 1 and factors is None:
        products.append(("rectified", places[1], layers[0].of_w, places[0], layers[0].of_b))
    for i in last_first:
        if gradient:
            products.append(("dots", gradient[i].of_w, of_g, places[i], places[i]))
            products.append(("dots", gradient[i].of_b, of_g, of_ones, of_ones))
        if i or want_x:
            of_w = layers[i].of_w_transposed
            out, of_out = _empty(g, of_w[0], scratch=i > 0 and factors is None)
            products.append(("masked" if i else "plain", of_out, of_w, of_g, places[i]))
            if i and factors is not None:
                _run(products, g)
                products.clear()
                out.mul_(factors[:, i - 1])
            memory.append(out)
            of_g = of_out
    _run(products, g)
    return memory[-1] if want_x else None


class Adam:
    """Runs Adam (Kingma & Ba 2015, algorithm 1) on parameters (n, p), with a learning rate a row.

    A CPU runs compiled code. Other devices run `torch.optim.Adam`, on every row by itself unless
    neighbours have the same rate.
    """

    def __init__(
        self, parameters: Tensor, gradient: Tensor, lrs: Sequence[float], betas: tuple[float, float]
    ) -> None:
        self.parameters, self.gradient = parameters.detach(), gradient
        self.lrs, self.betas, self.steps = torch.tensor(lrs, dtype=torch.float64), betas, 0
        if _compiled(parameters):
            self.moments = parameters.new_zeros(len(lrs), 2, parameters.shape[1])
            return
        rates: dict[float, list[Tensor]] = {}
        for lr, start, end in runs(lrs):
            rows = self.parameters[start:end].requires_grad_()
            rows.grad = gradient[start:end]
            rates.setdefault(lr, []).append(rows)
        groups = [{"params": rows, "lr": lr} for lr, rows in rates.items()]
        on_gpu = parameters.is_cuda
        self.adam = torch.optim.Adam(groups, betas=betas, fused=True, capturable=on_gpu)

    def step(self) -> None:
        """Moves the parameters, and then sets the gradient to zero."""
        if not _compiled(self.parameters):
            self.adam.step()
            self.gradient.zero_()
            return
        self.steps += 1
        a, b = self.betas
        scalars = torch.empty(len(self.lrs), 1, len(SCALARS), dtype=torch.float64)
        scalars[..., 0] = self.lrs[:, None] / (1 - a**self.steps)
        scalars[..., 1:] = torch.tensor(
            [(1 - b**self.steps) ** -0.5, a, 1 - a, b, 1 - b], dtype=torch.float64
        )
        scalars = scalars.to(self.parameters.dtype)
        of_parameters, of_g, of_moments, of_scalars = (
            _place(each)
            for each in (self.parameters[:, None], self.gradient[:, None], self.moments, scalars)
        )
        _run([("adam", of_parameters, of_g, of_moments, of_scalars)], self.parameters)


def runs(values: Sequence[T]) -> list[tuple[T, int, int]]:
    """Returns maximal runs of equal neighbours as (value, start, end)."""
    found, start = [], 0
    for value, group in groupby(values):
        end = start + len(list(group))
        found.append((value, start, end))
        start = end
    return found


def _compiled(tensor: Tensor) -> bool:
    """Says whether compiled code computes with this tensor, or else torch."""
    return tensor.is_cpu


def _in_rows(tensor: Tensor) -> Tensor:
    """Returns the tensor with numbers of a row that lie next to each other in memory."""
    return tensor if tensor.stride(2) == 1 else tensor.contiguous()


def _empty(like: Tensor, rows: int, scratch: bool) -> tuple[Tensor, Place]:
    """Returns new memory (n, rows, batch); networks share one matrix of it if it is scratch."""
    n, _, batch = like.shape
    out = like.new_empty(1 if scratch else n, rows, batch)
    apart = 0 if scratch else rows * batch
    return out.expand(n, -1, -1), (rows, batch, out.data_ptr(), apart, batch, 1)


def _place(tensor: Tensor) -> Place:
    (_, rows, columns), (n, r, k) = tensor.shape, tensor.stride()
    return rows, columns, tensor.data_ptr(), n, r, k


def _run(products: Sequence[Product], example: Tensor) -> None:
    integers: list[int] = []
    for name, out, a, b, c in products:
        integers += KERNELS.index(name), out[0], out[1], a[1], a[5]
        integers += *out[2:5], *a[2:5], *b[2:5], *c[2:5]
    run = kernels(8 * example.itemsize)
    run(len(example), len(products), (ctypes.c_int64 * len(integers))(*integers))
