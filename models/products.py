"""Computes all layers of many perceptrons, and their gradients.

A CPU runs the code of `models.kernels`, network by network. Other devices run torch's products,
layer by layer. A layer has W (n, outputs, inputs) and b (n, outputs, 1); hidden layers have ReLUs.
"""

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from models.kernels import KERNELS, kernels

Layers = Sequence[tuple[Tensor, Tensor]]
Product = tuple[str, Tensor, Tensor, Tensor, Tensor]  # kernel, out, a, b, c


def forward(layers: Layers, x: Tensor, keep: bool) -> tuple[list[Tensor], Tensor]:
    """Returns the inputs of every layer, and the outputs (n, d_out, batch) for x (n, d_in, batch).

    On a CPU, inputs of hidden layers are scratch memory unless `keep`. The first hidden layer's
    always are: `backward` computes them again, which takes less time than to keep them.
    """
    x, n, last = _in_rows(x), len(x), len(layers) - 1
    inputs, products = [x], []
    for i, (w, b) in enumerate(layers):
        if _compiled(x):
            out = _empty(x, w.shape[1], scratch=i < last and (i == 0 or not keep))
            products.append(("affine" if i == last else "rectified", out, w, inputs[i], b))
        else:
            out = torch.baddbmm(b, w, inputs[i])
            out = out if i == last else out.relu_()
        inputs.append(out)
    _run(products, n)
    return inputs[:-1], inputs[-1]


def backward(
    layers: Layers, inputs: Sequence[Tensor], g: Tensor, gradient: Layers | None, want_x: bool
) -> Tensor | None:
    """Adds the gradient of W and b to `gradient` if given, and returns that of x if `want_x`.

    `inputs` are those of every layer, g (n, d_out, batch) is the gradient of the outputs.
    """
    g, products = _in_rows(g), []
    ones = g.new_ones(g.shape[2]).expand(len(g), 1, -1)
    if _compiled(g) and len(layers) > 1:
        (w, b), (x, h, *_) = layers[0], inputs
        products.append(("rectified", h, w, x, b))
    for i in reversed(range(len(layers))):
        w, h = layers[i][0], inputs[i]
        if gradient:
            for out, other in zip(gradient[i], (h, ones), strict=True):
                if _compiled(g):
                    products.append(("dots", out, g, other, other))
                else:
                    out.baddbmm_(g, other.mT)
        if i == 0 and not want_x:
            break
        if _compiled(g):
            out = _empty(g, w.shape[2], scratch=i > 0)
            products.append(("masked" if i else "plain", out, w.mT, g, h))
        else:
            out = torch.bmm(w.mT, g)
            out = torch.ops.aten.threshold_backward(out, h, 0) if i else out
        g = out
    _run(products, len(g))
    return g if want_x else None


def _compiled(tensor: Tensor) -> bool:
    """Says whether compiled code computes with this tensor, or else torch."""
    return tensor.is_cpu


def _empty(like: Tensor, rows: int, scratch: bool) -> Tensor:
    """Returns new memory (n, rows, batch); networks share one matrix of it if it is scratch."""
    n = len(like)
    return like.new_empty(1 if scratch else n, rows, like.shape[2]).expand(n, -1, -1)


def _in_rows(tensor: Tensor) -> Tensor:
    """Returns the tensor with numbers of a row that lie next to each other in memory."""
    return tensor if tensor.stride(2) == 1 else tensor.contiguous()


def _run(products: Sequence[Product], n: int) -> None:
    integers: list[int] = []
    for name, out, a, *others in products:
        integers += KERNELS.index(name), *out.shape[1:], a.shape[2], a.stride(2)
        for tensor in (out, a, *others):
            integers += tensor.data_ptr(), *tensor.stride()[:2]
    if products:
        run = kernels(8 * products[0][1].itemsize)
        run(n, len(products), (ctypes.c_int64 * len(integers))(*integers))
