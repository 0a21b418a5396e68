"""Layers compute what their base classes compute: numbers, gradients, gradients of gradients."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from models import colour, mnist
from models.layers import Conv, Deconv, Linear, View, layout
from models.mnist import ImageShape

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


# On a GPU


class Called(TorchDispatchMode):
    """Notes the operations that torch calls."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("layer", "size"), LAYERS)
def test_elsewhere_than_on_a_cpu_a_layer_is_its_base_class(
    layer: nn.Module, size: tuple[int, ...]
) -> None:
    """Forward and backward, on "meta", which stands for a GPU: its own kernels are faster there."""
    layer, x = copy.deepcopy(layer).to("meta"), torch.empty(size, device="meta")
    called = []
    for base in (False, True):
        with Called() as mode:
            found(layer, base, x, twice=False)
        called.append(mode.names)
    assert called[0] == called[1]


@pytest.mark.parametrize("rounded", [False, True])
@pytest.mark.parametrize(
    ("part", "shape"),
    [
        (mnist.PARTS["implicit"], ImageShape()),
        (mnist.PARTS["bernoulli"], ImageShape()),
        (mnist.PARTS[mnist.JOINT], ImageShape()),
        (colour.PARTS["conv"], ImageShape(3, 32, 256, 0.25)),
        (colour.PARTS[mnist.JOINT], ImageShape(3, 32, 256, 0.25)),
    ],
)
def test_weights_decide_the_layout_on_a_gpu(part: Any, shape: ImageShape, rounded: bool) -> None:
    """Every convolution gives images in the layout in which cuDNN multiplies fastest."""
    seen: list[Any] = []
    net, wanted = part(shape), layout("cuda", rounded)
    with FakeTensorMode(), torch.device("cuda"):  # shapes and strides alone, without a GPU
        for module in net.modules():
            for name, each in module.named_parameters(recurse=False):
                kind = wanted if each.dim() == 4 else torch.preserve_format
                vars(module)["_parameters"][name] = torch.empty(each.shape).to(memory_format=kind)
            for name, each in module.named_buffers(recurse=False):
                vars(module)["_buffers"][name] = torch.empty(each.shape, dtype=each.dtype)
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                module.register_forward_hook(lambda *given: seen.append(given[2]))
        noise = [torch.empty(8, *size) for size in getattr(net, "noise", ())]
        eps = [torch.empty(8, *size) for size in [getattr(net, "eps_shape", ())] if size]
        x, z = torch.empty(8, *shape.image()), torch.empty(8, shape.d_z)
        images, codes = hasattr(net, "features") or eps, hasattr(net, "code") or not eps
        net(*([x] if images else []), *([z] if codes else []), *eps, *noise)
    other = layout("cuda", not rounded)
    assert len(seen) >= 2 and all(each.is_contiguous(memory_format=wanted) for each in seen)
    several = [each for each in seen if each.shape[1] > 1]  # one channel lies in either layout
    assert not any(each.is_contiguous(memory_format=other) for each in several)


def test_the_layout_of_each_device() -> None:
    assert layout("cpu") == layout("cpu", rounded=True) == torch.channels_last
    assert layout("cuda", rounded=True) == torch.channels_last
    assert layout("cuda") == torch.contiguous_format
