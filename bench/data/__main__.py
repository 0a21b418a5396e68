"""Prepares a data set of images as one memory-mapped array in the cache.

    python -m bench.data prepare mnist|cifar10|celeba|NAME [--from DIR|FILE] [--cache DIR]

Trainings then need no --data. The files are torchvision's, or images of your own: idx files, an
.npz or .npy, a folder, .zip or .tar of images. The suite tests on every tenth image if the files
have no split. It leaves out hidden files and what is no image, and says how many.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from bench import plugins
from bench.cli import Parser, UsageError, complain, one_line, to_path
from bench.data.load import DATASETS, DataError, cache, prepare, read
from bench.process import command


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status of the command: 0, or 2 after one line on standard error."""
    try:
        plugins.load()
    except UsageError as error:
        return complain("bench.data", error)
    names = [name for name, entry in DATASETS.items() if not entry.draw]
    p = Parser("python -m bench.data", __doc__)
    p.add_argument("command", choices=["prepare"])
    p.add_argument("name", choices=names, metavar="NAME", help=", ".join(names))
    about = "takes these files; without --from the command takes the cache's or downloads them"
    p.add_argument("--from", dest="data", type=to_path, metavar="DIR|FILE", help=about)
    about = "keeps the array here, as $SVAE_BENCH_DATA does (default: ~/.cache/svae-bench)"
    p.add_argument("--cache", type=to_path, metavar="DIR", help=about)
    about = "compares every byte of the prepared array with its SHA-256 instead"
    p.add_argument("--check", action="store_true", help=about)
    a = p.parse_args(arguments)
    if a.cache:
        os.environ["SVAE_BENCH_DATA"] = str(a.cache)
    try:
        folder = cache() / "prepared" / a.name
        found = read(folder, check=True) if a.check else prepare(a.name, a.data)
    except DataError as error:  # which names the option of bench.run
        return complain("bench.data", re.sub(r"(?<= )--data\b", "--from", str(error)))
    if found is None:
        hint = "without --check this command prepares it"
        return complain("bench.data", f"no {a.name} has been prepared in {cache()}; {hint}")
    shape = " x ".join(map(str, found.train.shape[1:]))
    line = (
        f"{a.name}: {len(found.train)} + {len(found.test)} images ({found.name}) of {shape}, "
        f"SHA-256 {found.sha256}{' verified' if a.check else ''}, "
        f"from {found.origin}, in {folder}"
    )
    print(*(one_line(each) for each in (found.said, line) if each), sep="\n")
    return 0


if __name__ == "__main__":
    command(main)
