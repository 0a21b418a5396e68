"""Defines layers of torch.nn that are computed in ways which are faster on a CPU.

Each layer computes what its base class computes, up to rounding, and has the same parameters.
Convolutions are fastest with channels last, so layers here return images in that layout.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LARGE = 1 << 17
"""From so many weights on, oneDNN saves a dense layer more time than its copies cost."""
HUGE, SMALL = 1 << 19, 4
"""Convolutions of so many weights and of images up to so many pixels wide are fast as products."""
FEW = 8
"""Up to so many channels of large images fill a processor's vectors badly."""


class _Product(torch.autograd.Function):
    """Computes x @ weight.T + bias, or x @ weight if it is `turned`, by oneDNN.

    oneDNN uses AVX-512 on every processor that has it. MKL, which multiplies for `torch.nn.Linear`,
    uses it on Intel's alone.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None = None, turned: bool = False
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.turned = turned
        if turned:
            multiply, size = torch.ops.aten.mkldnn_linear_backward_input, [len(x), weight.shape[1]]
            return multiply(size, x.to_mkldnn(), weight).to_dense()
        return F.linear(x.to_mkldnn(), weight, bias).to_dense()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (x, weight), (g,), wanted = ctx.saved_tensors, gradients, ctx.needs_input_grad
        dx = _Product.apply(g, weight, None, not ctx.turned) if wanted[0] else None
        dw, db = None, g.sum(0) if wanted[2] else None
        if wanted[1]:
            left, right = (x, g) if ctx.turned else (g, x)
            if torch.is_grad_enabled():  # oneDNN's gradient has no gradient
                dw = left.T @ right
            else:
                multiply, pair = torch.ops.aten.mkldnn_linear_backward_weights, (left, right)
                dw, _ = multiply(*(each.to_mkldnn() for each in pair), weight, False)
        return dx, dw, db, None


def _by_onednn(x: Tensor, weight: Tensor, least: int) -> bool:
    """Says whether `_Product` is there for x, and faster for so many weights."""
    there = x.device.type == "cpu" and torch.backends.mkldnn.is_available()
    exact = x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    return there and exact and weight.numel() >= least


class Linear(nn.Linear):
    """Is a dense layer, which oneDNN multiplies on a CPU if it is large."""

    def forward(self, input: Tensor) -> Tensor:
        if input.ndim == 2 and _by_onednn(input, self.weight, LARGE):
            return _Product.apply(input, self.weight, self.bias)
        return super().forward(input)


def _windows(n: int, kernel: int) -> tuple[int, Tensor]:
    """Returns how windows lie that are `kernel` pixels wide and start at every second pixel.

    The first number is the width of an image of n x n windows. Then follow the numbers of the
    pixels that each window sees, row by row.
    """
    width = 2 * (n - 1) + kernel
    start, more = 2 * torch.arange(n), torch.arange(kernel)
    rows = start[:, None, None, None] + more[:, None]
    return width, (rows * width + start[:, None, None] + more).flatten()


def _few_pixels(images: Tensor) -> bool:
    return images.shape[2] == images.shape[3] <= SMALL


class Conv(nn.Conv2d):
    """Halves the image by a convolution of stride 2, with as many pixels around it as it needs.

    For few channels, a 3 x 3 convolution of the four phases of the image does the same, and the
    gradient in the image is faster on a CPU. For few pixels and many channels, one product of all
    windows of all images is faster, because oneDNN convolves every image on its own.
    """

    def __init__(self, d_in: int, d_out: int, kernel: int = 5) -> None:
        super().__init__(d_in, d_out, kernel, 2, (kernel - 1) // 2)

    def forward(self, input: Tensor) -> Tensor:
        if _few_pixels(input) and _by_onednn(input, self.weight, HUGE):
            return self._product(input)
        kernel, even = self.kernel_size[0], input.shape[2] % 2 == input.shape[3] % 2 == 0
        few = self.in_channels <= FEW and kernel <= 6 and input.device.type == "cpu"
        if not (few and even and input.requires_grad):
            return super().forward(input)
        before = 2 - (kernel - 1) // 2
        taps = F.pad(self.weight, (before, 6 - kernel - before) * 2)
        phases = taps.unflatten(2, (3, 2)).unflatten(4, (3, 2)).permute(0, 1, 3, 5, 2, 4)
        return F.conv2d(F.pixel_unshuffle(input, 2), phases.flatten(1, 3), self.bias, 1, 1)

    def _product(self, input: Tensor) -> Tensor:
        kernel, old = self.kernel_size[0], input.shape[2]
        before = (kernel - 1) // 2
        n = (old + 2 * before - kernel) // 2 + 1
        width, pixels = _windows(n, kernel)
        sides = (before, width - before - old)
        image = F.pad(input.permute(0, 2, 3, 1), (0, 0, *sides, *sides)).flatten(1, 2)
        seen = image.index_select(1, pixels).view(len(input) * n * n, -1)
        out = _Product.apply(seen, self.weight.permute(0, 2, 3, 1).flatten(1), self.bias)
        return out.unflatten(0, (-1, n, n)).permute(0, 3, 1, 2)


class Deconv(nn.ConvTranspose2d):
    """Doubles the image by a transposed convolution, 5 x 5 and stride 2.

    For few channels, a 3 x 3 convolution makes the four phases of the output, which each meet every
    second tap of the kernel. The numbers are the same up to rounding, and the forward pass is
    faster on a CPU. For many channels, the zeros among the taps cost more. For few pixels and very
    many channels, one product for all images is faster.
    """

    def __init__(self, d_in: int, d_out: int) -> None:
        super().__init__(d_in, d_out, 5, 2, 2, output_padding=1)

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        if _few_pixels(input) and _by_onednn(input, self.weight, HUGE):
            return self._product(input)
        if self.out_channels >= 8:
            return super().forward(input, output_size)
        taps = F.pad(self.weight, (0, 1, 0, 1)).flip(2, 3)
        phases = taps.unflatten(2, (3, 2)).unflatten(4, (3, 2)).flip(3, 5)
        weight = phases.permute(1, 3, 5, 0, 2, 4).flatten(0, 2)
        assert self.bias is not None
        return F.pixel_shuffle(F.conv2d(input, weight, self.bias.repeat_interleave(4), 1, 1), 2)

    def _product(self, input: Tensor) -> Tensor:
        n, old, channels = len(input), input.shape[2], self.out_channels
        width, pixels = _windows(old, 5)
        each = input.permute(0, 2, 3, 1).reshape(n * old * old, -1)
        drawn = _Product.apply(each, self.weight.permute(0, 2, 3, 1).flatten(1), None, True)
        image = drawn.new_zeros(n, width * width, channels)
        image = image.index_add(1, pixels, drawn.view(n, -1, channels)).unflatten(1, (width, width))
        assert self.bias is not None
        return (image[:, 2:-1, 2:-1] + self.bias).permute(0, 3, 1, 2)


def beside(*images: Tensor) -> Tensor:
    """Returns one batch of images with the channels of all of these, (n, c, h, w) each."""
    return torch.cat(images, 1).contiguous(memory_format=torch.channels_last)


class View(nn.Unflatten):
    """Makes images (n, c, h, w) of numbers (n, c h w)."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input).contiguous(memory_format=torch.channels_last)
