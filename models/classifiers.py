"""The classifiers that judge generated images are two small residual networks.

A classifier's logits give the inception score. Its features, the inputs of the last layer, give the
Fréchet distance. `bench.scores` trains and loads classifiers; stored weights have the names here.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d, relu


class Block(nn.Module):
    """Halves the size by a convolution and pooling, then adds a residual convolution."""

    def __init__(self, d_in: int, d_out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(d_in, d_out, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(d_out)
        self.residual_conv = nn.Conv2d(d_out, d_out, 3, padding=1, bias=False)
        self.residual_norm = nn.BatchNorm2d(d_out)

    def forward(self, x: Tensor) -> Tensor:
        """Returns (n, d_out, h // 2, w // 2) of (n, d_in, h, w)."""
        x = relu(self.norm(max_pool2d(self.conv(x), 2)))
        return x + relu(self.residual_norm(self.residual_conv(x)))


class Classifier(nn.Module):
    """Returns logits (n, 10) and features (n, widths[-1]) of images (n, c, h, w) in [0, 1].

    The design is Jordan's airbench (arXiv 2404.00498), narrower and with residual convolutions. It
    has a fixed whitening of 2 x 2 patches (see `whiten`), three blocks and one linear layer.
    """

    def __init__(self, shape: tuple[int, int, int], widths: tuple[int, int, int]) -> None:
        super().__init__()
        self.shape = shape
        d_patch = 4 * shape[0]
        self.stem = nn.Conv2d(shape[0], 2 * d_patch, 2).requires_grad_(False)
        sizes = (2 * d_patch, *widths)
        self.blocks = nn.Sequential(*(Block(*pair) for pair in zip(sizes, widths, strict=False)))
        self.head = nn.Linear(widths[-1], 10)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.blocks(relu(self.stem(images))).amax((2, 3))
        return self.head(features), features

    @torch.no_grad()
    def whiten(self, images: Tensor, floor: float = 1e-4) -> None:
        """Sets the stem to the whitening of the 2 x 2 patches of `images`, and its negative.

        Whitening divides principal components of centred patches by their standard deviation.
        `floor` is added to variances, so that noise is not blown up.
        """
        patches = nn.functional.unfold(images, 2).transpose(1, 2).flatten(0, 1).double()
        variances, axes = torch.linalg.eigh(torch.cov(patches.T))
        filters = (axes / (variances + floor).sqrt()).T
        filters = torch.cat([filters, -filters])
        self.stem.weight.copy_(filters.reshape(self.stem.weight.shape))
        assert self.stem.bias is not None
        self.stem.bias.copy_(-filters @ patches.mean(0))


def network(name: str) -> Classifier:
    """Returns the untrained classifier of "mnist" (1 x 28 x 28) or "cifar10" (3 x 32 x 32).

    Raises ValueError for another name.
    """
    shapes = {"mnist": ((1, 28, 28), (32, 64, 96)), "cifar10": ((3, 32, 32), (64, 160, 192))}
    if name not in shapes:
        raise ValueError(f"no classifier for {name!r}; allowed: {', '.join(shapes)}")
    return Classifier(*shapes[name])
