"""Defines layers of torch.nn that are computed in ways which are faster on a CPU.

Each layer computes what its base class computes, up to rounding, and has the same parameters.
Convolutions are fastest with channels last, so layers here return images in that layout.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LARGE = 1 << 17
"""From so many weights on, oneDNN's products save more time than its tensors cost."""
FEW = 8
"""Up to so many channels of large images fill a processor's vectors badly."""


class _Product(torch.autograd.Function):
    """Computes a dense layer by oneDNN, which uses AVX-512 where MKL does not: on AMD."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.linear(x.to_mkldnn(), weight, bias).to_dense()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (x, weight), (g,) = ctx.saved_tensors, gradients
        if torch.is_grad_enabled():  # oneDNN's gradient has no gradient
            return g @ weight, g.T @ x, g.sum(0)
        backward, wanted = torch.ops.aten.mkldnn_linear_backward, ctx.needs_input_grad
        dx, *others = backward(x.to_mkldnn(), g.to_mkldnn(), weight, wanted)
        found = dx.to_dense() if wanted[0] else None, *others
        return tuple(each if want else None for each, want in zip(found, wanted, strict=True))


class Linear(nn.Linear):
    """Is a dense layer. oneDNN multiplies large weights in float32 on a CPU."""

    def forward(self, input: Tensor) -> Tensor:
        large = self.weight.numel() >= LARGE and torch.backends.mkldnn.is_available()
        plain = input.device.type == "cpu" and input.dtype == torch.float32 and input.ndim == 2
        if large and plain and not torch.is_autocast_enabled("cpu"):
            return _Product.apply(input, self.weight, self.bias)
        return super().forward(input)


class Conv(nn.Conv2d):
    """Halves the image by a convolution of stride 2, with as many pixels around it as it needs.

    For few channels, a 3 x 3 convolution of the four phases of the image does the same, and the
    gradient in the image is faster on a CPU.
    """

    def __init__(self, d_in: int, d_out: int, kernel: int = 5) -> None:
        super().__init__(d_in, d_out, kernel, 2, (kernel - 1) // 2)

    def forward(self, input: Tensor) -> Tensor:
        kernel, even = self.kernel_size[0], input.shape[2] % 2 == input.shape[3] % 2 == 0
        if self.in_channels > FEW or kernel > 6 or not (input.requires_grad and even):
            return super().forward(input)
        before = 2 - (kernel - 1) // 2
        taps = F.pad(self.weight, (before, 6 - kernel - before) * 2)
        phases = taps.unflatten(2, (3, 2)).unflatten(4, (3, 2)).permute(0, 1, 3, 5, 2, 4)
        return F.conv2d(F.pixel_unshuffle(input, 2), phases.flatten(1, 3), self.bias, 1, 1)


class Deconv(nn.ConvTranspose2d):
    """Doubles the image by a transposed convolution, 5 x 5 and stride 2.

    For few channels, a 3 x 3 convolution makes the four phases of the output, which each meet every
    second tap of the kernel. The numbers are the same up to rounding, and the forward pass is
    faster on a CPU. For many channels, the zeros among the taps cost more.
    """

    def __init__(self, d_in: int, d_out: int) -> None:
        super().__init__(d_in, d_out, 5, 2, 2, output_padding=1)

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        if self.out_channels >= 8:
            return super().forward(input, output_size)
        taps = F.pad(self.weight, (0, 1, 0, 1)).flip(2, 3)
        phases = taps.unflatten(2, (3, 2)).unflatten(4, (3, 2)).flip(3, 5)
        weight = phases.permute(1, 3, 5, 0, 2, 4).flatten(0, 2)
        assert self.bias is not None
        return F.pixel_shuffle(F.conv2d(input, weight, self.bias.repeat_interleave(4), 1, 1), 2)


class View(nn.Unflatten):
    """Makes images (n, c, h, w) of numbers (n, c h w)."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input).contiguous(memory_format=torch.channels_last)
