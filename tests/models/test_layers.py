"""Layers compute what their base classes compute: numbers, gradients, gradients of gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.layers import Conv, Deconv, Linear, View

LAYERS = [
    (Linear(256, 513), (5, 256)),  # large: oneDNN's
    (Linear(7, 3), (5, 7)),
    *((Conv(3, 10, kernel), (2, 3, *size)) for kernel in range(1, 8) for size in ((14, 8), (7, 9))),
    (Conv(17, 10), (2, 17, 8, 8)),  # many channels
    *((Conv(256, 384, kernel), (2, 256, size, size)) for kernel in (4, 5) for size in (3, 4)),
    (Deconv(3, 2), (2, 3, 7, 6)),
    (Deconv(3, 17), (2, 3, 7, 6)),
    *((Deconv(128, 256), (2, 128, size, size)) for size in (1, 4)),
    (View(1, (3, 2, 2)), (5, 12)),
]


def found(layer: nn.Module, base: bool, x: Tensor, twice: bool) -> list[Tensor]:
    """Returns the output and the gradients of its squares, or of the sizes of these gradients."""
    x = x.clone().requires_grad_()
    y = type(layer).__mro__[1].forward(layer, x) if base else layer(x)
    inputs = [x, *layer.parameters()]
    loss: Any = y.square().sum()
    if twice:
        loss = sum(g.norm() for g in torch.autograd.grad(loss, inputs, create_graph=True))
    gradients = torch.autograd.grad(loss, inputs, allow_unused=True)
    return [y.detach(), *(g for g in gradients if g is not None)]


@pytest.mark.parametrize("twice", [False, True])
@pytest.mark.parametrize(("layer", "size"), LAYERS)
def test_a_layer_computes_what_its_base_class_does(
    layer: nn.Module, size: tuple[int, ...], twice: bool
) -> None:
    x = torch.randn(size, generator=torch.Generator().manual_seed(0))
    ours, theirs = (found(layer, base, x, twice) for base in (False, True))
    assert len(ours) >= 2
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4 * float(other.abs().max()))


@pytest.mark.parametrize("learning", ["input", "weight", "bias"])
def test_a_large_dense_layer_has_the_gradient_of_one_thing_alone(learning: str) -> None:
    layer = Linear(256, 513).requires_grad_(False)
    x = torch.randn(5, 256, generator=torch.Generator().manual_seed(0))
    wanted = {"input": x, "weight": layer.weight, "bias": layer.bias}[learning]
    wanted.requires_grad_()
    gradients = []
    for forward in (layer, lambda x: nn.Linear.forward(layer, x)):
        gradients += torch.autograd.grad(forward(x).square().sum(), wanted)
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-4 * float(gradients[1].abs().max()))


def test_a_large_dense_layer_is_onednns() -> None:
    """Otherwise the tests here would compare torch's layer with itself."""
    layer, x = Linear(256, 513), torch.randn(5, 256)
    names = {False: "AddmmBackward0", True: "_ProductBackward"}
    if not torch.backends.mkldnn.is_available():
        pytest.skip("torch without oneDNN")
    assert type(layer(x).grad_fn).__name__ == names[True]
    assert type(layer.double()(x.double()).grad_fn).__name__ == names[False]
    layer.float()
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
