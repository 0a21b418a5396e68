"""The words that networks of images are built of."""

from __future__ import annotations

import pytest
import torch

from models.mnist import ImageShape, build

SHAPE = ImageShape(channels=3, size=20, d_z=5, width=2)


@pytest.mark.parametrize(
    ("text", "size", "expected"),
    [
        ("conv8", (3, 20, 20), (16, 10, 10)),
        ("conv8 conv8 conv8", (3, 20, 20), (16, 3, 3)),
        ("conv8k4 bn relu", (3, 20, 20), (16, 10, 10)),
        ("deconv8 ln leaky deconvc tanh", (3, 20, 20), (3, 80, 80)),
        ("conv8 pool flatten", (3, 20, 20), (16 * 5 * 5,)),
        ("fc6@4 bn view@4 bn", (5,), (12, 4, 4)),
        ("flatten fc6 bn fcz", (3, 20, 20), (5,)),
        ("fc1", (5,), (1,)),
    ],
)
def test_layers_of_words(text: str, size: tuple[int, ...], expected: tuple[int, ...]) -> None:
    """`width` doubles numbers of channels and units, and leaves c, z and 1."""
    layers, outputs = build(text, SHAPE, *size)
    assert layers(torch.zeros(2, *size)).shape == (2, *expected)
    assert outputs == torch.Size(expected).numel() and len(layers) == len(text.split())


def test_another_word_is_refused() -> None:
    with pytest.raises(ValueError, match="no layer is called 'cnov8'"):
        build("conv8 cnov8", SHAPE, 3, 20, 20)
