"""Checkpoints of long trainings are safetensors with a SHA-256 of their tensors."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

from bench.store.atomic import write_atomically


def save(path: Path, tensors: dict[str, Tensor]) -> None:
    """Replaces the checkpoint at `path` in one step."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    content = to_bytes(tensors, {"sha256": _digest(tensors)})
    write_atomically(path, content, path.parent)


def load(path: Path) -> dict[str, Tensor] | None:
    """Returns what `save` wrote, or None. Removes a damaged file."""
    if not path.exists():
        return None
    with suppress(OSError, SafetensorError, ValueError), safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if (file.metadata() or {}).get("sha256") == _digest(tensors):
            return tensors
    path.unlink(missing_ok=True)
    return None


def _digest(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()
