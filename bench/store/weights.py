"""Kept weights of a training: what their file says of it, and how they are read back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bench.spec import Spec, columns
from bench.store import checkpoint

if TYPE_CHECKING:
    from torch import Tensor

    from bench.store.rows import Store

TRAINING = ("id", "spec", "digest")
"""What says which training it is: id, spec as JSON, digest of the method's source."""
MADE = ("commit", "torch", "device", "device_name")
ROUNDED = "rounded"
"""A published file says here to what its weights were rounded."""


class Unusable(Exception):
    """There are no such weights, or they can't be used; the message is the reason."""


def about(spec: Spec, row: Mapping[str, Any]) -> dict[str, str]:
    """Returns what a file of weights says of its training: `TRAINING` and `MADE`.

    Trainings that agree in all of it have the same weights, whichever of several runners has
    trained them.
    """
    fields = {name: getattr(spec, name) for name in columns(type(spec))}
    found = {"id": spec.id, "spec": json.dumps(fields), "digest": row.get("method_digest") or ""}
    return found | {name: str(row.get(name)) for name in MADE}


def read(store: Store, spec: Spec, row: Mapping[str, Any]) -> dict[str, Tensor]:
    """Returns the weights of a stored row, by name, float32.

    The file of a published row is of the same training made again: its commit is another. Raises
    Unusable for no file, a damaged file and weights of another training.
    """
    path = store.weights_of(spec.id)
    if not path.is_file():
        raise Unusable("no weights are kept")
    try:
        tensors, told = checkpoint.read(path)
    except checkpoint.Damaged:
        raise Unusable("the file of weights is damaged") from None
    expected = about(spec, row)
    names = TRAINING if store.published("").is_file() else tuple(expected)
    if any(told.get(name) != expected[name] for name in names):
        raise Unusable("the weights are of another training")
    return full(tensors)


def full(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns these tensors, half precision as float32."""
    return {
        name: each.float() if each.is_floating_point() else each for name, each in tensors.items()
    }
