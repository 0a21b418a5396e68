"""Reproduces the tables and figures of the Symmetric Variational Autoencoder paper."""

import sys
from pathlib import Path

if sys.argv[:1] == ["-m"]:  # Python is looking for the command `python -m bench.NAME`
    from bench import process

    process.begin()

# The current folder may have a models.py of its own, and comes first where Python looks.
sys.path.insert(0, str(Path(__file__).parents[1]))
try:
    import models

    if Path(__file__).parents[1] not in Path(str(models.__file__)).parents:
        raise ImportError(f"{models.__file__} is in the way of the suite's own package models")
finally:
    del sys.path[0]
