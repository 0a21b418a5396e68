"""Checkpoints of long trainings, and kept weights, are safetensors with a SHA-256 of themselves."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as to_bytes
from torch import Tensor

from bench.store.atomic import write_atomically


class Damaged(Exception):
    """The file at this path is not what `save` wrote."""


def save(
    path: Path,
    tensors: dict[str, Tensor],
    about: Mapping[str, str] = {},
    drafts: Path | None = None,
) -> None:
    """Replaces the file at `path` in one step, through a draft in `drafts` or beside it.

    `about` becomes the file's metadata, with a SHA-256 of tensors and metadata under "sha256".
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    content = to_bytes(tensors, {**about, "sha256": _digest(tensors, about)})
    write_atomically(path, content, drafts or path.parent)


def load(path: Path) -> dict[str, Tensor] | None:
    """Returns what `save` wrote, or None. Removes a damaged file."""
    if not path.is_file():
        return None
    with suppress(Damaged):
        return read(path)[0]
    path.unlink(missing_ok=True)
    return None


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Returns the tensors and the metadata that `save` wrote. Raises Damaged for another file."""
    with suppress(OSError, SafetensorError, ValueError, LookupError):
        tensors, about = parsed(path.read_bytes())  # safetensors takes no path that is no UTF-8
        if about.pop("sha256", "") == _digest(tensors, about):
            return tensors, about
    raise Damaged(path)


def parsed(content: bytes) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Returns tensors and metadata of a safetensors file."""
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return load_tensors(content), header["__metadata__"]


def _digest(tensors: Mapping[str, Tensor], about: Mapping[str, str]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.numpy().tobytes())
    for name, text in sorted(about.items()):
        digest.update(f"{name} {text}\n".encode())
    return digest.hexdigest()
