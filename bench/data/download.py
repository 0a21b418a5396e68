"""Downloads files through pooch, which names a file only when it is whole and right.

torchvision writes MNIST and CIFAR-10 under the final name before it checks them, and falls back
from HTTPS to HTTP. So the suite fetches them itself.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

from bench.data import files
from bench.data.files import CIFAR10_SHA256, MNIST, DataError

MNIST_URL = "https://ossci-datasets.s3.amazonaws.com/mnist"  # torchvision's first mirror
BITS_URL = "https://www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist"
CIFAR10_URL = "https://www.cs.toronto.edu/~kriz"
INCEPTION_URL = "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0"
INCEPTION = "weights-inception-2015-12-05-6726825d.pth"
INCEPTION_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
"""Users of the file have published this hash; it was never compared with the release itself.
pytorch-fid's pt_inception-2015-12-05-6726825d.pth is the same file."""


def fetch(
    url: str,
    path: Path,
    *,
    sha256: str | None = None,
    check: Callable[[Path], object] | None = None,
    option: str = "--data",
    by_hand: str = "",
    get: Callable[[str, str], object] | None = None,
) -> Path:
    """Downloads `url` to `path` and returns it. The file appears only when it is right.

    A file is right if it has this SHA-256, or if `check` does not raise DataError. `get(url, path)`
    writes the bytes; by default HTTPS brings them. Raises DataError with a manual route: `by_hand`,
    or where the file belongs and the `option` that takes it.
    """
    import pooch
    from torch.hub import download_url_to_file  # costs seconds, and downloads are rare

    def download(url: str, draft: str, _: object) -> None:
        write = get or partial(download_url_to_file, progress=os.isatty(2))
        write(url, str(draft))  # gdown takes no Path
        if check:
            check(Path(draft))

    by_hand = by_hand or f"download it by hand to {path}, or give files you have with {option}"
    if not url.startswith(("https://", "http://127.0.0.1:")):
        raise ValueError(f"{url} is not HTTPS")
    called: Any = download  # pooch's annotation has other names of the arguments
    pooch.get_logger().setLevel("WARNING")  # an error is one line
    try:
        pooch.retrieve(url, sha256, path.name, path.parent, downloader=called)
    except (DataError, ValueError) as error:
        other = " (another SHA-256)" if isinstance(error, ValueError) else ""
        raise DataError(f"{url} did not give the file it should{other}: {by_hand}") from None
    except Exception as error:  # urllib, http and gdown raise kinds of their own
        if isinstance(error, HTTPError):
            error.close()
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{url} can't be downloaded ({reason}): {by_hand}") from None
    return path


def mnist(cache: Path) -> None:
    """Fetches the files of MNIST that the cache lacks, 11 MB in all, in torchvision's layout."""
    found = files.mnist_files(cache)
    for name, file in MNIST.items():
        path = cache / "MNIST" / "raw" / f"{file}.gz"
        if name not in found:
            url = f"{MNIST_URL}/{path.name}"
            fetch(url, path, check=lambda draft, name=name: files.mnist({name: draft}))


def bits(cache: Path) -> Path:
    """Fetches the test set of statically binarized MNIST, 16 MB; returns its path."""
    name = "binarized_mnist_test.amat"
    return fetch(f"{BITS_URL}/{name}", cache / name, check=files.bits)


def cifar10(cache: Path) -> None:
    """Fetches CIFAR-10 as the archive that torchvision takes, 170 MB."""
    name = "cifar-10-python.tar.gz"
    fetch(f"{CIFAR10_URL}/{name}", cache / name, sha256=CIFAR10_SHA256)


def inception(cache: Path) -> Path:
    """Fetches the weights of torch-fidelity's Inception network, 96 MB; returns their path."""
    url = f"{INCEPTION_URL}/{INCEPTION}"
    return fetch(url, cache / INCEPTION, sha256=INCEPTION_SHA256, option="--inception-weights")


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
"""Google Drive's ids of the files, from torchvision, and SHA-256s, from its prototypes."""
CELEBA_BY_HAND = (
    "get img_align_celeba.zip and list_eval_partition.txt by hand from "
    "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html (non-commercial research only), then: "
    "python -m bench.data prepare celeba --from FOLDER_WITH_BOTH"
)


def celeba(cache: Path) -> None:
    """Fetches CelebA's aligned images, 1.4 GB, from Google Drive by gdown.

    Raises DataError with the manual route if gdown is missing or Google Drive refuses. It often
    refuses: a daily quota is spent, or it asks for a login.
    """
    try:
        import gdown  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise DataError(
            f"CelebA's download needs gdown (pip install 'svae-bench[celeba]'); or {CELEBA_BY_HAND}"
        ) from None
    get = partial(gdown.download, quiet=False)
    for name, (id, sha256) in CELEBA.items():
        path, url = cache / "celeba" / name, f"https://drive.google.com/uc?id={id}"
        if not path.is_file():
            fetch(url, path, sha256=sha256, by_hand=CELEBA_BY_HAND, get=get)
