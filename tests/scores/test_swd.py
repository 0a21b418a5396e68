"""The sliced Wasserstein distance: known answers, and what it must and must not see."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bench.data import load as data
from bench.scores.swd import LINES, PATCHES, Patches, _blur, _on_lines, distance, pyramid, up

N = 300


def noise(seed: int, size: int = 32, n: int = N) -> Tensor:
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("size", "levels"), [(16, 1), (28, 1), (32, 2), (36, 2), (64, 3), (68, 3)])
def test_the_pyramid_holds_the_whole_image(size: int, levels: int) -> None:
    """Of sizes of colour images, and of grey images, which no power of two may divide."""
    x = noise(0, size, 4).double()
    found = pyramid(x)
    assert [level.shape[2] for level in found] == [size >> i for i in range(levels)]
    whole = found[-1]
    for level in reversed(found[:-1]):
        whole = level + up(whole)
    torch.testing.assert_close(whole, x, rtol=0, atol=1e-12)
    flat = torch.full((1, 3, size, size), 0.3)
    torch.testing.assert_close(_blur(flat), flat)
    torch.testing.assert_close(
        up(flat)[:, :, 2:-2, 2:-2], torch.full_like(up(flat), 0.3)[:, :, 2:-2, 2:-2]
    )


def test_a_set_and_itself_are_the_same_in_any_order() -> None:
    a, b = Patches.of(noise(0)), Patches.of(noise(1))
    assert distance(a, Patches.of(noise(0))) == 0
    assert distance(a, b) == distance(b, a) > 0


def test_the_images_device_computes_all() -> None:
    """On "meta", which stands for a GPU: only random numbers come from the CPU, in two moves."""
    moved: list[str] = []

    class Moved(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None):
            out = func(*args, **(kwargs or {}))
            given = {each.device.type for each in tree_leaves(args) if isinstance(each, Tensor)}
            if given and isinstance(out, Tensor) and {out.device.type} != given:
                moved.append(str(func._overloadpacket))
            return out

    with Moved():
        levels = pyramid(torch.empty(5, 3, 32, 32, device="meta"))
        rng = torch.Generator().manual_seed(0)
        lines = [_on_lines(level, rng) for level in levels]
    assert moved == ["aten._to_copy"] * 2 * len(levels)  # corners and lines
    assert {(each.device.type, *each.shape) for each in lines} == {("meta", LINES, 5 * PATCHES)}


def test_brightness_and_contrast_of_a_whole_set_are_normalised_away() -> None:
    x = noise(0)
    assert distance(Patches.of(x), Patches.of(x * 0.5 + 0.2)) < 0.01


def test_a_known_distance() -> None:
    """White noise is N(0, 1) on every line; images that are all +1 or all -1 are +-h on it, h the
    sum of the line's weights."""
    x = torch.randn(2000, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    sign = torch.ones(2000, 1, 1, 1)
    sign[::2] = -1
    flat = sign.expand(-1, 1, 16, 16)
    gaussian, two = Patches.of(x), Patches.of(flat)
    rng = torch.Generator().manual_seed(0)
    torch.randint(10, (2, 2000, 16, 1, 1), generator=rng)
    lines = torch.randn(49, 128, generator=rng)
    heights = (lines / lines.norm(dim=0)).sum(0).abs()
    # W1 between N(0, 1) and +-h, each half: E | |Z| - h | of a half-normal |Z|.
    q = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
    half = torch.erfinv(q) * math.sqrt(2)
    expected = np.mean([float((half - h).abs().mean()) for h in heights.double()])
    assert distance(gaussian, two) == pytest.approx(1e3 * expected, rel=0.01)


def test_what_differs_more_is_further_away() -> None:
    images = data.load("stand-in photos")
    train, test = images.train[:500], images.test[:500]
    real = Patches.of(test)
    floor = distance(Patches.of(train), real)
    blurred = distance(Patches.of(_blur(torch.as_tensor(np.array(train)).float() / 255)), real)
    random = distance(Patches.of(noise(0, n=500)), real)
    assert floor < blurred < random


def test_the_seed_alone_decides() -> None:
    first, again, other = (Patches.of(noise(0), seed=s).sorted[0] for s in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)


@pytest.mark.parametrize(
    ("images", "n", "message"),
    [
        (torch.zeros(5, 3, 8, 8), None, r"allowed: \(n, c, h, h\), h >= 16"),
        (torch.zeros(5, 3, 32), None, r"shape \(5, 3, 32\)"),
        (torch.zeros(5, 3, 32, 32), 6, "n is 6 of 5 images; allowed: 2 to 5"),
        (torch.full((5, 3, 32, 32), math.nan), None, "not finite"),
    ],
)
def test_bad_input_gets_one_line(images: Tensor, n: int | None, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        Patches.of(images, n)
    assert "\n" not in str(caught.value)


def test_sets_of_different_size_are_refused() -> None:
    with pytest.raises(ValueError, match="300 images with seed 0 and 200 with 0 can't"):
        distance(Patches.of(noise(0)), Patches.of(noise(0), 200))
    with pytest.raises(ValueError, match="equal n, size and seed"):
        distance(Patches.of(noise(0)), Patches.of(noise(0), seed=1))


def test_a_model_that_gives_one_colour_has_no_texture() -> None:
    grey = torch.full((N, 3, 32, 32), 0.3)
    flat = Patches.of(grey + 1e-7 * noise(1))
    assert all(bool((level == 0).all()) for level in flat.sorted)
