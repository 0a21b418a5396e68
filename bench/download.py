"""Downloads: over HTTPS, checked before the file gets its name, never half a file under it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from bench.datafiles import DataError, amat, check_bits

MNIST_URL = "https://ossci-datasets.s3.amazonaws.com/mnist"
"""The mirror torchvision takes first."""
MNIST_SHA256 = {
    "train-images-idx3-ubyte.gz": (
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"
    ),
    "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "train-labels-idx1-ubyte.gz": (
        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"
    ),
    "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}
"""Of files whose MD5s are the four that torchvision publishes."""
BITS_URL = "https://www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist"


def fetch(
    url: str,
    path: Path,
    *,
    sha256: str | None = None,
    check: Callable[[Path], None] | None = None,
) -> None:
    """Downloads `url` to `path`, which appears only when whole and right.

    Right means this SHA-256, or that `check` does not raise DataError. Raises DataError, with
    the manual route, if it can't be had.
    """
    from torch.hub import download_url_to_file  # costs seconds, and downloads are rare

    manual = f"download it by hand to {path}, or give files you have with --data"
    if not url.startswith(("https://", "http://127.0.0.1:")):
        raise ValueError(f"{url} is not HTTPS")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".download-") as folder:
            draft = Path(folder) / path.name
            download_url_to_file(url, str(draft), sha256, progress=os.isatty(2))
            if check:
                check(draft)
            os.replace(draft, path)
    except DataError:
        raise DataError(f"{url} did not give the file it should: {manual}") from None
    except RuntimeError:  # the SHA-256 differs
        raise DataError(
            f"{url} did not give the file it should (another SHA-256): {manual}"
        ) from None
    except (OSError, ValueError) as error:  # urllib's errors among them
        raise DataError(f"{url} can't be downloaded ({error}): {manual}") from None


def mnist(cache: Path) -> None:
    """MNIST, 11 MB, in torchvision's own layout."""
    for file, sha256 in MNIST_SHA256.items():
        path = cache / "MNIST" / "raw" / file
        if not path.is_file():
            fetch(f"{MNIST_URL}/{file}", path, sha256=sha256)


def bits(cache: Path) -> None:
    """The test set of statically binarized MNIST, 16 MB, checked by its content."""
    name = "binarized_mnist_test.amat"
    fetch(f"{BITS_URL}/{name}", cache / name, check=lambda path: check_bits(path, amat(path)))
