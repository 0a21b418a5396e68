"""Defines layers of torch.nn that are computed in ways which are faster on a CPU.

Each layer computes what its base class computes, up to rounding, and has the same parameters.
A CPU convolves fastest with channels last, so layers here return images in that layout there. On
every other device they are torch's own layers, and their weights decide the layout, see `layout`.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LARGE = 1 << 17
"""From so many weights on, oneDNN saves a dense layer more time than its copies cost."""
HUGE, SMALL = 1 << 19, 4
"""Convolutions of so many weights and of images up to so many pixels wide are fast as products."""
NARROW = 16
"""Up to so many channels fill a processor's vectors badly in oneDNN's transposed convolutions."""


def layout(device: torch.device | str, rounded: bool = False) -> torch.memory_format:
    """Returns the layout of weights with which a device convolves fastest.

    `rounded` says whether products are rounded to TF32 or bfloat16. A GPU's units for such products
    take channels last, but cuDNN's kernels for strict float32 take channels first. The suite does
    not let cuDNN choose by time (`torch.backends.cudnn.benchmark`): its choice may differ from run
    to run, and so would the bits.
    """
    last = torch.device(device).type == "cpu" or rounded
    return torch.channels_last if last else torch.contiguous_format


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
        return _times(x.to_mkldnn(), weight, bias, turned)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (x, weight), (g,), wanted = ctx.saved_tensors, gradients, ctx.needs_input_grad
        db = g.sum(0) if wanted[2] else None
        if torch.is_grad_enabled():  # oneDNN's gradient has no gradient
            dw = x.T @ g if ctx.turned else g.T @ x
            return _Product.apply(g, weight, None, not ctx.turned), dw, db, None
        copy = g.to_mkldnn()
        dx = _times(copy, weight, None, not ctx.turned) if wanted[0] else None
        dw = None
        if wanted[1]:
            multiply, pair = torch.ops.aten.mkldnn_linear_backward_weights, (copy, x.to_mkldnn())
            dw, _ = multiply(*(reversed(pair) if ctx.turned else pair), weight, False)
        return dx, dw, db, None


def _times(x: Tensor, weight: Tensor, bias: Tensor | None, turned: bool) -> Tensor:
    """Returns what `_Product` computes of a tensor of oneDNN's."""
    if not turned:
        return F.linear(x, weight, bias).to_dense()
    size = [len(x), weight.shape[1]]
    return torch.ops.aten.mkldnn_linear_backward_input(size, x, weight).to_dense()


def _plain(x: Tensor) -> bool:
    return x.device.type == "cpu" and not torch.is_autocast_enabled("cpu")


def _by_onednn(x: Tensor, weight: Tensor, least: int) -> bool:
    """Says whether `_Product` is there for x, and faster for so many weights."""
    there = _plain(x) and x.dtype == torch.float32 and torch.backends.mkldnn.is_available()
    return there and weight.numel() >= least


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


def _doubled(x: Tensor, weight: Tensor, bias: Tensor | None, before: int) -> Tensor:
    """Returns the transposed convolution of stride 2, which makes images twice as large.

    A 3 x 3 convolution makes the four phases of the output, which each meet every second tap of the
    kernel. It is faster for few channels; for many, the zeros among the taps cost more. `before`
    are the pixels that the kernel, up to 6 wide, reaches to the left.
    """
    first = 2 - before
    taps = F.pad(weight, (first, 6 - first - weight.shape[2]) * 2)
    phases = taps.unflatten(2, (3, 2)).unflatten(4, (3, 2)).flip(2, 4).permute(3, 5, 1, 0, 2, 4)
    out = F.conv2d(x, phases.flatten(0, 2), None if bias is None else bias.repeat(4), 1, 1)
    out = out.permute(0, 2, 3, 1)
    n, h, w, _ = out.shape
    rows = out.unflatten(3, (2, -1)).transpose(2, 3).reshape(n, 2 * h, 2 * w, -1)
    return rows.permute(0, 3, 1, 2)


def _slope(image: Tensor, half: Tensor, weight: Tensor, before: int) -> Tensor:
    """Returns the gradient in the weight of a convolution of stride 2.

    `half` is the gradient of what the convolution makes of `image`, or the other way round for a
    transposed convolution.
    """
    geometry = (2, 2), (before, before), (1, 1), False, (0, 0), 1
    backward, wanted = torch.ops.aten.convolution_backward, (False, True, False)
    return backward(half, image, weight, None, *geometry, wanted)[1]


class _Halve(torch.autograd.Function):
    """Convolves with stride 2; the gradient in the image is `_Double`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, before: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.before = before
        return F.conv2d(x, weight, bias, 2, before)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (x, weight), (g,), wanted = ctx.saved_tensors, gradients, ctx.needs_input_grad
        dx = _Double.apply(g, weight, None, ctx.before) if wanted[0] else None
        if dx is not None and dx.shape != x.shape:
            dx = dx[:, :, : x.shape[2], : x.shape[3]].contiguous(memory_format=torch.channels_last)
        dw = _slope(x, g, weight, ctx.before) if wanted[1] else None
        return dx, dw, g.sum((0, 2, 3)) if wanted[2] else None, None


class _Double(torch.autograd.Function):
    """Convolves like `_doubled`; the gradient in the image is `_Halve`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, before: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.before = before
        return _doubled(x, weight, bias, before)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (x, weight), (g,), wanted = ctx.saved_tensors, gradients, ctx.needs_input_grad
        dx = _Halve.apply(g, weight, None, ctx.before) if wanted[0] else None
        dw = _slope(g, x, weight, ctx.before) if wanted[1] else None
        return dx, dw, g.sum((0, 2, 3)) if wanted[2] else None, None


class Conv(nn.Conv2d):
    """Halves the image by a convolution of stride 2, with as many pixels around it as it needs.

    For few channels, the gradient in the image is computed as in `Deconv`. For few pixels and many
    channels, one product of all windows of all images is faster, because oneDNN convolves every
    image on its own.
    """

    def __init__(self, d_in: int, d_out: int, kernel: int = 5) -> None:
        self.before = (kernel - 1) // 2
        super().__init__(d_in, d_out, kernel, 2, self.before)

    def forward(self, input: Tensor) -> Tensor:
        if _few_pixels(input) and _by_onednn(input, self.weight, HUGE):
            return self._product(input)
        kernel = self.kernel_size[0]
        whole = kernel % 2 == 1 or input.shape[2] % 2 == input.shape[3] % 2 == 0
        if self.in_channels <= NARROW and kernel <= 6 and whole and _plain(input):
            return _Halve.apply(input, self.weight, self.bias, self.before)
        return super().forward(input)

    def _product(self, input: Tensor) -> Tensor:
        kernel, before, old = self.kernel_size[0], self.before, input.shape[2]
        n = (old + 2 * before - kernel) // 2 + 1
        width, pixels = _windows(n, kernel)
        sides = (before, width - before - old)
        image = F.pad(input.permute(0, 2, 3, 1), (0, 0, *sides, *sides)).flatten(1, 2)
        seen = image.index_select(1, pixels).view(len(input) * n * n, -1)
        out = _Product.apply(seen, self.weight.permute(0, 2, 3, 1).flatten(1), self.bias)
        return out.unflatten(0, (-1, n, n)).permute(0, 3, 1, 2)


class Deconv(nn.ConvTranspose2d):
    """Doubles the image by a transposed convolution, 5 x 5 and stride 2.

    For few channels, a convolution of stride 1 makes the phases of the output, see `_doubled`. For
    few pixels and very many channels, one product for all images is faster.
    """

    def __init__(self, d_in: int, d_out: int) -> None:
        super().__init__(d_in, d_out, 5, 2, 2, output_padding=1)

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        if _few_pixels(input) and _by_onednn(input, self.weight, HUGE):
            return self._product(input)
        if self.out_channels <= NARROW and _plain(input):
            return _Double.apply(input, self.weight, self.bias, 2)
        if self.out_channels < 8 and input.device.type == "cpu":
            return _doubled(input, self.weight, self.bias, 2)
        return super().forward(input, output_size)

    def _product(self, input: Tensor) -> Tensor:
        n, old, channels = len(input), input.shape[2], self.out_channels
        width, pixels = _windows(old, 5)
        each = input.permute(0, 2, 3, 1).reshape(n * old * old, -1)
        drawn = _Product.apply(each, self.weight.permute(0, 2, 3, 1).flatten(1), None, True)
        image = drawn.new_zeros(n, width * width, channels)
        image = image.index_add(1, pixels, drawn.view(n, -1, channels)).unflatten(1, (width, width))
        assert self.bias is not None
        return (image[:, 2:-1, 2:-1] + self.bias).permute(0, 3, 1, 2)


def _laid_out(images: Tensor) -> Tensor:
    """Returns images as a CPU convolves them fastest; elsewhere convolutions lay them out."""
    on_cpu = images.device.type == "cpu"
    return images.contiguous(memory_format=torch.channels_last) if on_cpu else images


def beside(*images: Tensor) -> Tensor:
    """Returns one batch of images with the channels of all of these, (n, c, h, w) each."""
    return _laid_out(torch.cat(images, 1))


class View(nn.Unflatten):
    """Makes images (n, c, h, w) of numbers (n, c h w)."""

    def forward(self, input: Tensor) -> Tensor:
        return _laid_out(super().forward(input))
