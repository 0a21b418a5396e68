"""Stacked perceptrons and their Adam equal torch's own, whoever computes them."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor

from models import products
from models.kernels import kernels
from models.stacked import Bank, Shape, xavier

# Sizes that tiles and vectors divide, and sizes that leave every kind of rest.
SHAPES = [Shape(4, 2, 32, 2), Shape(4, 3, 33, 1), Shape(3, 1, 7, 5), Shape(2, 2, 50, 3)]
BATCHES = [128, 37]


def stacked(shape: Shape, dtype: torch.dtype, n: int = 3) -> Bank:
    """Returns networks with biases other than 0."""
    rng = np.random.default_rng(0)
    bank = Bank(shape, [xavier(shape, rng) for _ in range(n)], torch.device("cpu"), dtype)
    with torch.no_grad():
        bank.parameters += 0.1 * torch.from_numpy(rng.normal(size=bank.parameters.shape)).to(dtype)
    return bank


def by_autograd(bank: Bank, x: Tensor, g: Tensor, factors: Tensor | None = None) -> list[Tensor]:
    """Returns outputs, and gradients of x and of W and b of every layer, by torch alone."""
    leaves = [x.detach().clone().requires_grad_()]
    for w, b, *_ in bank.layers:
        leaves += [w.detach().clone().requires_grad_(), b.detach().clone().requires_grad_()]
    out, *layers = leaves
    for i in range(0, len(layers), 2):
        out = layers[i] @ out + layers[i + 1]
        out = out.relu() if i < len(layers) - 2 else out
        out = out * factors[:, i // 2] if i < len(layers) - 2 and factors is not None else out
    return [out.detach(), *torch.autograd.grad(out, leaves, g)]


def by_bank(
    bank: Bank, x: Tensor, g: Tensor, frozen: bool = False, factors: Tensor | None = None
) -> list[Tensor]:
    bank.gradient.zero_()
    x = x.detach().clone().requires_grad_()
    out = bank(x, frozen, factors)
    out.backward(g)
    assert x.grad is not None
    gradients = [tensor.clone() for w, b, *_ in bank._gradients for tensor in (w, b)]
    return [out.detach(), x.grad, *gradients]


def inputs(shape: Shape, batch: int, dtype: torch.dtype, n: int = 3) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(1)
    sizes = (n, shape.d_in, batch), (n, shape.d_out, batch)
    x, g = (torch.randn(size, generator=rng, dtype=dtype) for size in sizes)
    return x, g


@pytest.fixture(params=["processor", 128, 256, 512, "torch"])
def by(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Computes products with vectors of so many bits, or as on a GPU."""
    if request.param == "torch":
        monkeypatch.setattr(products, "_compiled", lambda tensor: False)
        monkeypatch.setattr(products, "alignment", lambda device, dtype: 128 // dtype.itemsize)
    elif request.param != "processor":
        monkeypatch.setattr(products, "kernels", partial(kernels, vector=request.param))


@pytest.mark.usefixtures("by")
@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("shape", SHAPES)
def test_values_and_gradients_are_torchs(shape: Shape, batch: int) -> None:
    for dtype, tolerance in (torch.float64, 1e-12), (torch.float32, 2e-4):
        bank, given = stacked(shape, dtype), inputs(shape, batch, dtype)
        for own, other in zip(by_bank(bank, *given), by_autograd(bank, *given), strict=True):
            torch.testing.assert_close(own, other, rtol=tolerance, atol=tolerance)


@pytest.mark.usefixtures("by")
@pytest.mark.parametrize("shape", SHAPES)
def test_values_and_gradients_with_dropout_are_torchs(shape: Shape) -> None:
    bank, (x, g) = stacked(shape, torch.float64), inputs(shape, 37, torch.float64)
    kept = torch.rand(3, shape.depth, shape.width, 37, generator=torch.Generator().manual_seed(3))
    factors = (kept > 0.2).to(x.dtype) / 0.8
    expected = by_autograd(bank, x, g, factors)
    for own, other in zip(by_bank(bank, x, g, factors=factors), expected, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-12, atol=1e-12)
    out, x_grad, *gradients = by_bank(bank, x, g, True, factors)
    torch.testing.assert_close([out, x_grad], expected[:2], rtol=1e-12, atol=1e-12)
    assert not any(tensor.any() for tensor in gradients)
    with torch.no_grad():
        assert torch.equal(bank(x, factors=factors), out)


@pytest.mark.usefixtures("by")
def test_a_second_pass_adds_to_the_gradient_and_a_frozen_pass_does_not() -> None:
    bank = stacked(SHAPES[0], torch.float64)
    x, g = inputs(SHAPES[0], 37, torch.float64)
    once = by_bank(bank, x, g)
    bank(x).backward(g)
    for tensor, before in zip(
        (each for w, b, *_ in bank._gradients for each in (w, b)), once[2:], strict=True
    ):
        torch.testing.assert_close(tensor, 2 * before)
    out, x_grad, *gradients = by_bank(bank, x, g, frozen=True)
    assert torch.equal(out, once[0])
    assert torch.equal(x_grad, once[1])
    assert not any(tensor.any() for tensor in gradients)


def test_a_network_has_the_same_bits_in_any_stack_and_with_any_strides() -> None:
    shape = Shape(4, 2, 33, 2)
    bank, (x, g) = stacked(shape, torch.float32), inputs(shape, 100, torch.float32)
    together = by_bank(bank, x, g)
    alone = Bank(shape, [xavier(shape, np.random.default_rng(0))], torch.device("cpu"), x.dtype)
    with torch.no_grad():
        alone.parameters.copy_(bank.parameters[2:])
        assert torch.equal(bank(x)[2:], alone(x[2:]))  # keeps nothing for a gradient
    features_last = x.mT.contiguous().mT[2:], g.mT.contiguous().mT[2:]
    for given in (x[2:], g[2:]), features_last:
        for own, other in zip(by_bank(alone, *given), together, strict=True):
            assert torch.equal(own, other[2:])


@pytest.mark.parametrize("shape", [*SHAPES, Shape(4, 3, 512, 1)])
def test_matrices_lie_where_a_gpu_reads_them_fast(shape: Shape) -> None:
    weights = [xavier(shape, np.random.default_rng(0))] * 3
    bank = Bank(shape, weights, torch.device("meta"), torch.float32)
    for w, *_ in (*bank.layers, *bank._gradients):
        assert (4 * w.storage_offset()) % 128 == (4 * w.stride(0)) % 128 == 0
        assert w.stride()[1:] == (w.shape[2], 1)


@pytest.mark.usefixtures("by")
def test_what_is_no_number_stays_visible() -> None:
    bank, (x, g) = stacked(SHAPES[0], torch.float32), inputs(SHAPES[0], 37, torch.float32)
    with torch.no_grad():
        bank.layers[0][0][1] = torch.nan
    out, x_grad, *_ = by_bank(bank, x, g)
    for tensor in out, x_grad:
        assert [bool(each.isnan().all()) for each in tensor] == [False, True, False]
        assert tensor[::2].isfinite().all()


@pytest.mark.usefixtures("by")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_adam_is_torchs_with_a_rate_for_every_network(dtype: torch.dtype) -> None:
    lrs, betas, rng = [1e-3, 1e-3, 0.1], (0.5, 0.999), torch.Generator().manual_seed(2)
    start = torch.randn(3, 37, generator=rng, dtype=dtype)
    own, gradient = start.clone(), torch.zeros_like(start)
    adam = products.Adam(own, gradient, lrs, betas)
    rows = [row.clone().requires_grad_() for row in start]
    groups = [{"params": [row], "lr": lr} for row, lr in zip(rows, lrs, strict=True)]
    torchs = torch.optim.Adam(groups, betas=betas)
    for _ in range(5):
        gradient += torch.randn(3, 37, generator=rng, dtype=dtype)
        for row, its_gradient in zip(rows, gradient, strict=True):
            row.grad = its_gradient.clone()
        adam.step()
        torchs.step()
        assert not gradient.any()
    moved = torch.stack(rows).detach()
    torch.testing.assert_close(own, moved, rtol=1e-6, atol=1e-12 if dtype.itemsize == 8 else 1e-6)
