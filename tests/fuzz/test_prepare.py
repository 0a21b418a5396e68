"""`bench.data prepare` on any folder: it prepares what is there, or says in a line why not."""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from bench.data.__main__ import main
from tests.fuzz.cases import cases, judged, place, tree
from tests.fuzz.strategies import (
    IDX,
    LINKS,
    LISTS,
    NAMES,
    Folder,
    files,
    folders,
    good,
    lay,
    npzs,
    zipped,
)

DATA = st.sampled_from(
    ["mnist", "cifar10", "cifar10", "celeba", "celeba", "grey", "colour", "colour"]
)


def prepared(name: str, data: Path) -> None:
    """Prepares, looks at what was prepared, and prepares again."""
    found = judged(main, "prepare", name, "--from", str(data))
    checked = judged(main, "prepare", name, "--check")
    assert checked.status == found.status
    if not found.status:
        assert judged(main, "prepare", name, "--from", str(data)).out == found.out


@cases(
    12,
    name=DATA,
    folder=folders(),
    called=st.sampled_from(["data", "data", "img_align_celeba", "img_align_celeba", "é\udce9"]),
)
def test_a_folder(name: str, folder: Folder, called: str) -> None:
    with place() as here:
        data = here / called
        lay(data, folder)
        before = tree(data)
        prepared(name, data)
        assert tree(data) == before, "the user's files have changed"


@cases(
    5,
    name=DATA,
    folder=folders(0),
    end=st.sampled_from([".zip", ".ZIP", ".tar.gz", ".tgz", ".tar"]),
    extra=st.dictionaries(NAMES, files(0), max_size=3),
)
def test_an_archive(name: str, folder: Folder, end: str, extra: dict[str, bytes]) -> None:
    with place() as here:
        data = here / f"img_align_celeba{end}"
        inside = {n: content for n, content in folder.items() if isinstance(content, bytes)}
        if end.lower() == ".zip":
            data.write_bytes(zipped(inside | extra))
        else:
            lay(here / "inside", inside | extra)
            with tarfile.open(data, "w:gz" if end != ".tar" else "w") as archive:
                archive.add(here / "inside", "img_align_celeba")
        before = data.read_bytes()
        prepared(name, data)
        assert data.read_bytes() == before


@cases(4, name=DATA, content=st.one_of(npzs(), files(), LINKS, st.just("fifo")), called=NAMES)
def test_a_file(name: str, content: Any, called: str) -> None:
    with place() as here:
        lay(here / "data", {called: content})
        before = tree(here / "data")
        prepared(name, here / "data" / called)
        assert tree(here / "data") == before


LAYOUTS = {
    "celeba": ["list_eval_partition.txt", "list_eval_partition.csv"],
    "mnist": ["train-images-idx3-ubyte", "t10k-images-idx3-ubyte", "train-labels-idx1-ubyte"],
    "cifar10": [f"cifar-10-batches-py/{name}" for name in ("data_batch_1", "test_batch")],
}
OTHERS = {
    "celeba": [f"img_align_celeba/{name}" for name in good()],
    "mnist": ["t10k-labels-idx1-ubyte"],
    "cifar10": [f"cifar-10-batches-py/data_batch_{i}" for i in range(2, 6)],
}


@cases(5, name=st.sampled_from(["celeba", "celeba", "mnist", "cifar10"]), data=st.data())
def test_files_under_the_names_of_a_data_set(name: str, data: st.DataObject) -> None:
    with place() as here:
        folder: Folder = {}
        chosen = data.draw(st.lists(st.sampled_from(LAYOUTS[name]), min_size=1, unique=True))
        for path in [*chosen, *OTHERS[name]]:
            *above, last = path.split("/")
            inside = folder
            for each in above:
                inside = inside.setdefault(each, {})
            if path.endswith(".png"):
                inside[last] = good()[last]
            else:
                what = LISTS if name == "celeba" else IDX if name == "mnist" else files(0)
                inside[last] = data.draw(st.one_of(what, what, LINKS, st.just("fifo"), st.just({})))
        lay(here / "data", folder)
        before = tree(here / "data")
        prepared(name, here / "data")
        assert tree(here / "data") == before
