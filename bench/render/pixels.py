"""Lays out images and points as pixels, quickly and without matplotlib."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageDraw

REACH = 3.5
"""Points of the toy study are shown from -REACH to REACH on both axes."""
SIDE = 300
"""Pixels of a panel of points, each way."""
BEHIND, FRONT = "#bdbdbd", "#0072B2"
"""Colours of real points and of a model's points."""


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
    sheet = Image.new("RGB", (2 * SIDE, SIDE + 16), "white")
    draw = ImageDraw.Draw(sheet)
    for at, (name, points) in enumerate((("samples", samples), ("reconstructions", x_rec))):
        left = at * SIDE
        draw.text((left + 6, 2), name, fill="black")
        draw.rectangle((left + 2, 16, left + SIDE - 3, SIDE + 13), outline=BEHIND)
        for some, colour in ((x, BEHIND), (points, FRONT)):
            there = some[(np.abs(some) < REACH).all(1)]
            places = (there / REACH + 1) / 2 * (SIDE - 12) + 6
            for across, up in places.tolist():
                a, b = left + across, 16 + SIDE - up
                draw.ellipse((a - 1.5, b - 1.5, a + 1.5, b + 1.5), fill=colour)
    return png(sheet)


def png(image: Image.Image) -> bytes:
    """Returns the file of an image."""
    buffer = io.BytesIO()
    image.save(buffer, "png")
    return buffer.getvalue()
