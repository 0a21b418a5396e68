"""Draws synthetic images for the `smoke` scale and the tests, which then need no data.

They have ten classes of equal size and are the same bytes on any machine. Their random numbers are
the output of SHAKE-256. Their arithmetic is elementwise +, -, *, / and square root, which IEEE 754
rounds in the same way everywhere.
"""

from __future__ import annotations

import hashlib

import numpy as np

from bench.data.files import Arrays

N_TRAIN, N_TEST = 2000, 500

_CORNERS = ((-1, -2), (1, -2), (-1, 0), (1, 0), (-1, 2), (1, 2))
_LINES = ((0, 1), (0, 2), (1, 3), (2, 3), (2, 4), (3, 5), (4, 5))
_DIGITS = ["012456", "25", "02346", "02356", "1235", "01356", "013456", "025", "0123456", "012356"]
"""Lines between six corners, a seven-segment display, that each digit lights."""


def _uniform(stream: str, n: int, *shape: int) -> np.ndarray:
    """Returns (n, *shape) multiples of 2^-15 in [-1, 1), float32, fixed by the stream's name."""
    count = n * int(np.prod(shape))
    raw = hashlib.shake_256(f"svae-bench stand-in {stream}".encode()).digest(2 * count)
    numbers = np.frombuffer(raw, dtype="<u2").reshape(n, *shape).astype(np.float32)
    return numbers / np.float32(2**15) - np.float32(1)


def digits() -> Arrays:
    """Returns grey digits, 2000 + 500 of (1, 28, 28), and their labels.

    They are seven-segment figures whose corners, slant, size, place and stroke width vary.
    """
    n = N_TRAIN + N_TEST
    corner = np.asarray(_CORNERS, dtype=np.float32) * 4
    corner = corner + _uniform("digits corners", n, 6, 2)
    affine = _uniform("digits affine", n, 6, 1) * np.float32(0.2)
    x = corner[..., 0] * (1 + affine[:, 0]) + corner[..., 1] * affine[:, 1]
    y = corner[..., 1] * (1 + affine[:, 2]) + corner[..., 0] * affine[:, 3] * np.float32(0.5)
    x, y = x + (affine[:, 4] * 8 + np.float32(13.5)), y + (affine[:, 5] * 8 + np.float32(13.5))
    stroke = _uniform("digits stroke", n)[:, None, None] * np.float32(0.6) + np.float32(1.3)

    at = np.arange(28, dtype=np.float32)
    distance2 = np.full((n, 28, 28), 1e6, dtype=np.float32)
    for line, (a, b) in enumerate(_LINES):
        lit = np.flatnonzero([str(line) in _DIGITS[i % 10] for i in range(n)])
        ax, ay = x[lit, a, None, None], y[lit, a, None, None]
        dx, dy = x[lit, b, None, None] - ax, y[lit, b, None, None] - ay
        px, py = at - ax, at[:, None] - ay
        share = np.clip((px * dx + py * dy) / (dx * dx + dy * dy), 0, 1)
        px, py = px - share * dx, py - share * dy
        distance2[lit] = np.minimum(distance2[lit], px * px + py * py)
    ink = np.clip(stroke - np.sqrt(distance2) + np.float32(0.5), 0, 1)
    return _split((ink * 255).astype(np.uint8)[:, None])


def photos(size: int = 32) -> Arrays:
    """Returns colour images, 2000 + 500 of (3, size, size), and their labels.

    They show ten shapes and textures of varying colour, place and size on a shaded background.
    """
    n = N_TRAIN + N_TEST
    u = _uniform(f"photos {size}", n, 4, 1, 1)
    colour = np.floor(_uniform(f"photos {size} colours", n, 3, 3, 1, 1) * 128) + 128
    at = (np.arange(size, dtype=np.float32) * 2 + 1) / np.float32(size) - 1
    scale = np.float32(0.55) + u[:, 2] * np.float32(0.15)
    x = (at - u[:, 0] * np.float32(0.3)) / scale  # (n, 1, size)
    y = (at[:, None] - u[:, 1] * np.float32(0.3)) / scale  # (n, size, 1)
    images = np.empty((n, 3, size, size), dtype=np.uint8)
    for c, shape in enumerate(_SHAPES):
        mask = shape(x[c::10], y[c::10])
        slope = (at[:, None] + at * u[c::10, 3]) * np.float32(0.25) + np.float32(0.5)
        low, high, inside = colour[c::10].swapaxes(0, 1)  # (n / 10, 3, 1, 1)
        shaded = low + (high - low) * slope[:, None]
        images[c::10] = np.where(mask[:, None], inside, shaded)
    return _split(images)


def _stripes(v: np.ndarray) -> np.ndarray:
    return np.floor(v * np.float32(2.5)) % 2 == 0


_SHAPES = (
    lambda x, y: x * x + y * y < 1,
    lambda x, y: np.maximum(abs(x), abs(y)) < 0.9,
    lambda x, y: abs(x) + abs(y) < 1.1,
    lambda x, y: (x * x + y * y < 1.2) & (x * x + y * y > 0.4),
    lambda x, y: (np.minimum(abs(x), abs(y)) < 0.3) & (np.maximum(abs(x), abs(y)) < 1.2),
    lambda x, y: (y < 0.8) & (abs(x) * 2 < y + 1.2),
    lambda x, y: _stripes(y + 0 * x),
    lambda x, y: _stripes(x + 0 * y),
    lambda x, y: _stripes(x + y),
    lambda x, y: _stripes(x) ^ _stripes(y),
)


def _split(images: np.ndarray) -> Arrays:
    labels = np.arange(len(images), dtype=np.int64) % 10
    arrays = {"train": images[:N_TRAIN], "test": images[N_TRAIN:]}
    return arrays | {"train_labels": labels[:N_TRAIN], "test_labels": labels[N_TRAIN:]}
