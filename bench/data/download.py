"""Downloads: over HTTPS, checked before the file gets its name, never half a file under it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.error import HTTPError

from bench.data.files import CIFAR10_SHA256, MNIST, DataError, amat, check_bits, mnist_files

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
    option: str = "--data",
) -> None:
    """Downloads `url` to `path`, which appears only when whole and right.

    Right means this SHA-256, or that `check` does not raise DataError. Raises DataError, with
    the manual route and the `option` that takes files at hand, if it can't be had.
    """
    from torch.hub import download_url_to_file  # costs seconds, and downloads are rare

    manual = f"download it by hand to {path}, or give files you have with {option}"
    if not url.startswith(("https://", "http://127.0.0.1:")):
        raise ValueError(f"{url} is not HTTPS")
    try:
        with _draft(path) as draft:
            download_url_to_file(url, str(draft), sha256, progress=os.isatty(2))
            if check:
                check(draft)
    except DataError:
        raise DataError(f"{url} did not give the file it should: {manual}") from None
    except RuntimeError:  # the SHA-256 differs
        raise DataError(
            f"{url} did not give the file it should (another SHA-256): {manual}"
        ) from None
    except (OSError, HTTPException) as error:  # urllib's errors among them
        if isinstance(error, HTTPError):
            error.close()
        raise DataError(f"{url} can't be downloaded ({error}): {manual}") from None


@contextmanager
def _draft(path: Path) -> Iterator[Path]:
    """Where to write what becomes `path` in one step, if nothing is raised meanwhile."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=path.parent, prefix=".download-") as folder:
        yield Path(folder) / path.name
        os.replace(Path(folder) / path.name, path)


def mnist(cache: Path) -> None:
    """Those files of MNIST that the cache lacks, 11 MB in all, in torchvision's own layout."""
    found = mnist_files(cache)
    for name, (file, _) in MNIST.items():
        if name not in found:
            path = cache / "MNIST" / "raw" / f"{file}.gz"
            fetch(f"{MNIST_URL}/{path.name}", path, sha256=MNIST_SHA256[path.name])


def bits(cache: Path) -> None:
    """The test set of statically binarized MNIST, 16 MB, checked by its content."""
    name = "binarized_mnist_test.amat"
    fetch(f"{BITS_URL}/{name}", cache / name, check=lambda path: check_bits(path, amat(path)))


CIFAR10_URL = "https://www.cs.toronto.edu/~kriz"


def cifar10(cache: Path) -> None:
    """CIFAR-10, 170 MB, the archive torchvision takes."""
    name = "cifar-10-python.tar.gz"
    fetch(f"{CIFAR10_URL}/{name}", cache / name, sha256=CIFAR10_SHA256)


INCEPTION_URL = "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0"
INCEPTION = "weights-inception-2015-12-05-6726825d.pth"
INCEPTION_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
"""As users of the file have published it, never checked here against the release itself; the name
has its first eight digits. pytorch-fid's pt_inception-2015-12-05-6726825d.pth is the same file."""


def inception(cache: Path) -> None:
    """The weights of torch-fidelity's Inception network, 96 MB, the file it takes itself."""
    url = f"{INCEPTION_URL}/{INCEPTION}"
    fetch(url, cache / INCEPTION, sha256=INCEPTION_SHA256, option="--inception-weights")


CELEBA = {
    "list_eval_partition.txt": (
        "0B7EVK8r0v71pY0NSMzRuSXJEVkk",
        "fc955bcb3ef8fbdf7d5640d9a8693a8431b5f2ee291a5c1449a1549e7e073fe7",
    ),
    "img_align_celeba.zip": (
        "0B7EVK8r0v71pZjFTYXZWM3FlRnM",
        "46fb89443c578308acf364d7d379fe1b9efb793042c0af734b6112e4fd3a8c74",
    ),
}
"""Google Drive's names of the files, as in torchvision, and the SHA-256s of its prototypes."""
CELEBA_BY_HAND = (
    "get img_align_celeba.zip and list_eval_partition.txt by hand from "
    "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html (non-commercial research only), then: "
    "python -m bench.data prepare celeba --from FOLDER_WITH_BOTH"
)


def celeba(cache: Path) -> None:
    """CelebA's aligned images, 1.4 GB, by gdown from Google Drive, which often refuses: its daily
    quota is spent, or it wants a login."""
    if find_spec("gdown") is None:
        raise DataError(
            f"CelebA's download needs gdown (pip install 'svae-bench[celeba]'); or {CELEBA_BY_HAND}"
        )
    gdown = import_module("gdown")
    for name, (id, sha256) in CELEBA.items():
        path = cache / "celeba" / name
        if path.is_file():
            continue
        try:
            with _draft(path) as draft:
                gdown.download(id=id, output=str(draft), quiet=False)
                with open(draft, "rb") as file:
                    if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                        raise DataError("it gave another file")
        except Exception as error:  # gdown raises kinds of its own
            reason = " ".join(str(error).split())[:200]
            raise DataError(
                f"Google Drive did not give {name} ({reason}); {CELEBA_BY_HAND}"
            ) from None
