"""Reproduces the tables and figures of the Symmetric Variational Autoencoder paper.

    from bench import UsageError, load, runs, specs, train

`runs` returns stored rows as a data frame. `load` returns a trained model, and `train` trains one.
`specs` says what can be trained. None of them loads torch or pandas before it is called. All raise
`UsageError`, in one line, for what can't be.
"""

import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.cli import UsageError
    from bench.frame import runs
    from bench.model import load, specs, train

__all__ = ["UsageError", "load", "runs", "specs", "train"]

_PLACES = {"UsageError": "bench.cli", "runs": "bench.frame"}
_PLACES |= dict.fromkeys(("load", "specs", "train"), "bench.model")

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


def __getattr__(name: str) -> Any:
    """Imports a name of the public interface when it is first used."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
