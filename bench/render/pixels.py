"""Lays out images and points as pixels, quickly and without matplotlib."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageDraw

REACH = 3.5
"""Points of the toy study are shown from -REACH to REACH on both axes."""
SIDE, TITLE = 300, 16
"""Pixels of a panel of points, each way, and of the line above it."""
PALETTE = bytes.fromhex("ffffff bdbdbd 0072b2 000000")
BEHIND, FRONT, INK = 1, 2, 3
"""Colours of real points, of a model's points and of words; 0 is the paper's."""
DOT = [(i, j) for i in range(4) for j in range(4) if (i, j) not in ((0, 0), (0, 3), (3, 0), (3, 3))]
"""Pixels of a point."""


def mosaic(images: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """(n, c, h, w) -> one image (rows * h, columns * w) or (…, 3), white where there are none."""
    n, c, h, w = images.shape
    sheet = np.full((rows * columns, c, h, w), 255, np.uint8)
    sheet[: min(n, len(sheet))] = images[: len(sheet)]
    tiles = sheet.reshape(rows, columns, c, h, w).transpose(0, 3, 1, 4, 2)
    return tiles.reshape(rows * h, columns * w, c).squeeze()


def side_by_side(samples: np.ndarray, x: np.ndarray, x_rec: np.ndarray) -> bytes:
    """Returns a PNG of 64 samples and, at their right, of 32 images beside reconstructions.

    All are uint8 (n, c, h, w). Without reconstructions there are samples alone.
    """
    sheet = mosaic(samples, 8, 8)
    if len(x_rec):
        gap = np.full((len(sheet), samples.shape[-1] // 4, *sheet.shape[2:]), 255, np.uint8)
        pairs = np.stack([x[:32], x_rec[:32]], 1).reshape(-1, *x.shape[1:])
        sheet = np.concatenate([sheet, gap, mosaic(pairs, 8, 8)], 1)
    times = max(1, 64 // samples.shape[-1])  # small images are hard to see
    return png(Image.fromarray(sheet.repeat(times, 0).repeat(times, 1)))


def scatter(x: np.ndarray, samples: np.ndarray, x_rec: np.ndarray) -> bytes:
    """Returns a PNG of two panels: samples, then reconstructions, each in front of the points x.

    All are (n, 2). Points that are not finite, or beyond REACH, are left out.
    """
    sheet = np.zeros((SIDE + TITLE, 2 * SIDE), np.uint8)  # numbers of colours in PALETTE
    for at, points in enumerate((samples, x_rec)):
        panel = sheet[TITLE:, at * SIDE : (at + 1) * SIDE]
        panel[2:-2, [2, -3]] = panel[[2, -3], 2:-2] = BEHIND
        for some, colour in ((x, BEHIND), (points, FRONT)):
            there = some[(np.abs(some) < REACH).all(1)] * (1, -1)  # rows go down
            across, down = ((there / REACH + 1) / 2 * (SIDE - 12) + 4).round().astype(int).T
            for i, j in DOT:
                panel[down + i, across + j] = colour
    image = Image.fromarray(sheet)
    image.putpalette(PALETTE)
    draw = ImageDraw.Draw(image)
    draw.text((6, 2), "samples", fill=INK)
    draw.text((SIDE + 6, 2), "reconstructions", fill=INK)
    return png(image)


def png(image: Image.Image) -> bytes:
    """Returns the file of an image."""
    buffer = io.BytesIO()
    image.save(buffer, "png")
    return buffer.getvalue()
