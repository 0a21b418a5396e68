"""Prepares a data set of images.

    python -m bench.data prepare mnist|cifar10|celeba|NAME [--from DIR|FILE] [--cache DIR]

turns torchvision's files, an .npz or any folder or zip of images (the middle square of each, in
the size of the data set, every tenth for the test) into one memory-mapped array in the cache;
without --from from files already in the cache, or downloaded to it. With --check it compares
every byte of what was prepared with its SHA-256 instead.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.cli import Parser, complain
from bench.data.load import DATASETS, DataError, cache, prepare, read


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status of `python -m bench.data`: 0, or 2 after one line on standard error."""
    names = [name for name, entry in DATASETS.items() if not entry.draw]
    p = Parser("python -m bench.data", __doc__)
    p.add_argument("command", choices=["prepare"])
    p.add_argument("name", choices=names, metavar="NAME", help=", ".join(names))
    p.add_argument("--from", dest="data", type=Path, metavar="PATH", help="files you have")
    p.add_argument("--cache", type=Path, metavar="DIR", help=f"default: {cache()}")
    p.add_argument("--check", action="store_true", help="compare what was prepared to its SHA-256")
    a = p.parse_args(arguments)
    if a.cache:
        os.environ["SVAE_BENCH_DATA"] = str(a.cache)
    folder = cache() / "prepared" / a.name
    try:
        found = read(folder, check=True) if a.check else prepare(a.name, a.data)
    except DataError as error:
        return complain("bench.data", error)
    if found is None:
        return complain("bench.data", f"no {a.name} has been prepared in {cache()}")
    shape = " x ".join(map(str, found.train.shape[1:]))
    print(
        f"{a.name}: {len(found.train)} + {len(found.test)} images ({found.name}) of {shape}, "
        f"SHA-256 {found.sha256}{' verified' if a.check else ''}, "
        f"from {found.origin}, in {folder}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
