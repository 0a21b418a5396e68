"""Random numbers: each training owns its generators, one for each purpose.

They are seeded by `Spec.stream`: what a training sees never depends on who else is in its stack,
on the device or on the order of jobs.
"""

from __future__ import annotations

import numpy as np


def generator(stream: str, purpose: str) -> np.random.Generator:
    """The generator of one training (`Spec.stream`, hex digits) for one purpose."""
    words = [int(stream[i : i + 8], 16) for i in range(0, len(stream), 8)]
    return np.random.Generator(np.random.PCG64([*words, *purpose.encode()]))
