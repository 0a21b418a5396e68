"""Forms of a user's own images: files, names of arrays, layouts, sizes; and what is refused."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bench.data import load as data
from bench.data.load import DataError, load
from bench.data.sources import images_in

pytestmark = pytest.mark.usefixtures("cache")
RNG = np.random.default_rng(2)
GREY = RNG.integers(256, size=(40, 28, 28), dtype=np.uint8)
COLOUR = RNG.integers(256, size=(40, 32, 32, 3), dtype=np.uint8)
LABELS = RNG.integers(10, size=40)


def idx(array: np.ndarray) -> bytes:
    """The content of an idx file."""
    header = struct.pack(f">{1 + array.ndim}i", 0x800 + array.ndim, *array.shape)
    return header + array.astype(np.uint8).tobytes()


def saved(place: Path, **arrays: Any) -> Path:
    np.savez(place, **arrays)
    return place


def all_of(images: data.Images) -> np.ndarray:
    """Training images, then test images."""
    return np.concatenate([images.train, images.test])


# idx files

TRAIN, TEST = ("train-images-idx3-ubyte", "t10k-images-idx3-ubyte")
LABELLED = {"train-labels-idx1-ubyte": LABELS[:30], "t10k-labels-idx1-ubyte": LABELS[30:]}
WHOLE = {TRAIN: GREY[:30], TEST: GREY[30:], **LABELLED}


def idx_folder(place: Path, files: dict[str, np.ndarray], packed: bool = False) -> Path:
    for name, array in files.items():
        path = place / (f"{name}.gz" if packed else name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(idx(array)) if packed else idx(array))
    return place


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    "name", ["{}", "raw/{}", "FashionMNIST/raw/{}", "emnist-letters-{}", "{}/{}"]
)
def test_idx_files_of_another_data_set(tmp_path: Path, name: str, packed: bool) -> None:
    files = {name.format(each, each): array for each, array in WHOLE.items()}
    images = load("mnist", idx_folder(tmp_path / "d", files, packed))
    assert images.name == "folder" and not images.stand_in
    assert np.array_equal(images.train[:, 0], GREY[:30])
    assert np.array_equal(images.test[:, 0], GREY[30:])
    assert images.train_labels is not None and images.test_labels is not None
    assert np.array_equal(images.train_labels, LABELS[:30])
    assert np.array_equal(images.test_labels, LABELS[30:])


@pytest.mark.parametrize(
    ("names", "labelled"),
    [
        ([TRAIN], False),
        ([TRAIN, "train-labels-idx1-ubyte"], True),
        (["a file.bin"], False),
        (["pixels", "classes"], True),
    ],
)
def test_idx_files_without_a_test_part(
    tmp_path: Path, names: Sequence[str], labelled: bool
) -> None:
    """Also a single file that is given itself."""
    place = idx_folder(tmp_path / "d", dict(zip(names, (GREY, LABELS), strict=False)))
    for where in (place, *([place / names[0]] if not labelled else [])):
        images = load("mnist", where)
        assert np.array_equal(images.test[:, 0], GREY[9::10]) and len(images.train) == 36
        assert (images.test_labels is not None) == labelled
        if images.test_labels is not None:
            assert np.array_equal(images.test_labels, LABELS[9::10])


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"a": GREY, "b": GREY}, "no clear parts: a (40, 28, 28), b (40, 28, 28)"),
        ({TRAIN: GREY, "train-labels-idx1-ubyte": LABELS[1:]}, "39 labels and 40 images"),
        ({TRAIN: GREY, TEST: GREY[:, 4:]}, "shapes"),
    ],
)
def test_idx_files_that_may_mean_anything_are_listed(
    tmp_path: Path, files: dict[str, np.ndarray], says: str
) -> None:
    with pytest.raises(DataError) as error:
        load("mnist", idx_folder(tmp_path / "d", files))
    assert says in str(error.value) and "allowed: " in str(error.value)


@pytest.mark.parametrize("change", [lambda c: c[:-1], lambda c: c + b"x", lambda c: c[:9]])
@pytest.mark.parametrize("packed", [False, True])
def test_an_idx_file_that_is_not_whole_is_damaged(
    tmp_path: Path, change: Callable[[bytes], bytes], packed: bool
) -> None:
    place = idx_folder(tmp_path / "d", WHOLE)
    content = change(idx(WHOLE[TEST]))
    (place / TEST).write_bytes(gzip.compress(content) if packed else content)
    with pytest.raises(DataError, match=f"{TEST} is damaged"):
        load("mnist", place)


# Arrays of numpy

SPLIT = (COLOUR[:30], COLOUR[30:])


@pytest.mark.parametrize(
    "names",
    [
        ("x_train", "x_test"),
        ("X_train", "X_test"),
        ("train_images", "test_images"),
        ("trainX", "testX"),
        ("train", "test"),
        ("training.data", "testing.data"),
    ],
)
def test_a_split_in_the_names_of_arrays_is_used(tmp_path: Path, names: tuple[str, str]) -> None:
    arrays: dict[str, Any] = dict(zip(names, SPLIT, strict=True))
    arrays |= {"val_images": COLOUR, "masks": GREY}
    train, test = names
    for name, found in ((train, LABELS[:30]), (test, LABELS[30:])):
        arrays[name.lower().replace("x", "y").replace("images", "labels")] = found[:, None]
    if train in ("train", "training.data"):  # these have no names of labels
        arrays = dict(zip(names, SPLIT, strict=True))
    images = load("cifar10", saved(tmp_path / "a.npz", **arrays))
    assert np.array_equal(images.train, SPLIT[0].transpose(0, 3, 1, 2))
    assert np.array_equal(images.test, SPLIT[1].transpose(0, 3, 1, 2))
    assert (images.test_labels is not None) == (train not in ("train", "training.data"))
    if images.test_labels is not None:
        assert np.array_equal(images.test_labels, LABELS[30:])


@pytest.mark.parametrize("name", ["images", "x", "data", "arr_0", "faces", "x_train"])
@pytest.mark.parametrize("labels", ["labels", "y", "targets", "arr_1", ""])
def test_every_tenth_image_is_for_the_test_without_a_split(
    tmp_path: Path, name: str, labels: str
) -> None:
    arrays = {name: COLOUR, **({labels: LABELS} if labels else {}), "weights": np.ones(40)}
    images = load("cifar10", saved(tmp_path / "a.npz", **arrays))
    assert np.array_equal(images.test, COLOUR[9::10].transpose(0, 3, 1, 2))
    assert (images.train_labels is not None) == bool(labels)


def test_labels_change_no_name_of_images(tmp_path: Path) -> None:
    """So trainings from when labels were not read keep their ids."""
    with_labels = load("cifar10", saved(tmp_path / "a.npz", images=COLOUR, labels=LABELS))
    without = load("cifar10", saved(tmp_path / "b.npz", images=COLOUR))
    assert with_labels.pixels == without.pixels == without.sha256 != with_labels.sha256


FORMS: dict[str, np.ndarray] = {
    "channels first": COLOUR.transpose(0, 3, 1, 2),
    "uint16": COLOUR * np.uint16(257),
    "floats": COLOUR / 255,
    "float32": (COLOUR / 255).astype(np.float32),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("end", ["npz", "npy"])
def test_layouts_and_types_of_pixels(tmp_path: Path, form: str, end: str) -> None:
    place = tmp_path / f"a.{end}"
    if end == "npz":
        saved(place, images=FORMS[form])
    else:
        np.save(place, FORMS[form])
    images = load("cifar10", place)
    assert np.array_equal(images.test, COLOUR[9::10].transpose(0, 3, 1, 2))


def test_bits_are_black_and_white(tmp_path: Path) -> None:
    images = load("mnist", saved(tmp_path / "a.npz", data=GREY > 127))
    assert np.array_equal(images.test[:, 0] == 255, GREY[9::10] > 127)


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"a": COLOUR, "b": COLOUR}, "a (40, 32, 32, 3), b (40, 32, 32, 3): not one array"),
        ({"images": COLOUR, "x_train": COLOUR, "x_test": COLOUR}, "not one array of images"),
        ({"weights": LABELS}, "weights (40,): not one array of images"),
        ({}, "no array: not one array of images"),
        ({"images": COLOUR.reshape(40, -1)}, "images (40, 3072): not one array"),
        ({"images": COLOUR, "labels": LABELS[1:]}, "39 labels and 40 images"),
        ({"images": COLOUR[..., :2]}, "1 or 3 channels"),
        ({"images": COLOUR * 1.0}, "floats from 0 to 255"),
        ({"images": COLOUR.astype(int)}, "pixels of type int64"),
        ({"images": COLOUR.astype(np.uint16)}, "no value is above 255"),
        ({"images": np.array([None])}, "no array"),
    ],
)
def test_arrays_that_may_mean_anything_are_listed(
    tmp_path: Path, arrays: dict[str, Any], says: str
) -> None:
    with pytest.raises(DataError) as error:
        load("cifar10", saved(tmp_path / "a.npz", **arrays))
    assert says in str(error.value) and "allowed: " in str(error.value)
    assert "damaged" not in str(error.value)


def test_a_file_that_is_cut_off_is_damaged(tmp_path: Path) -> None:
    for path in (saved(tmp_path / "a.npz", images=COLOUR), tmp_path / "a.npy"):
        if path.suffix == ".npy":
            np.save(path, COLOUR)
        path.write_bytes(path.read_bytes()[:-100])
        with pytest.raises(DataError, match=r"is damaged.* allowed: .*--data"):
            load("cifar10", path)


# Archives


def pngs(place: Path, n: int = 20, side: int = 32, mode: str = "RGB") -> Path:
    place.mkdir(parents=True)
    for i in range(n):
        pixels = RNG.integers(256, size=(side, side, 3), dtype=np.uint8)
        Image.fromarray(pixels).convert(mode).save(place / f"{i:03d}.png")
    return place


@pytest.mark.parametrize("end", ["tar", "tar.gz", "tgz", "tar.bz2", "tar.xz", "TAR"])
def test_a_tar_is_as_good_as_its_folder(
    tmp_path: Path,
    end: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing is left of what was unpacked."""
    place, scratch = pngs(tmp_path / "mine"), tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    (place / "notes.txt").write_text("no image")
    kind = end.rpartition(".")[2].lower().replace("tgz", "gz").replace("tar", "")
    with tarfile.open(tmp_path / f"m.{end}", f"w:{kind}") as archive:  # pyright: ignore
        archive.add(place, "./mine")
    assert load("cifar10", tmp_path / f"m.{end}").sha256 == load("cifar10", place).sha256
    assert f"20 images taken from {tmp_path}/m.{end}, 1 other file" in capsys.readouterr().err
    assert not list(scratch.iterdir())


def test_members_of_a_tar_are_no_paths_and_no_links(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = pngs(tmp_path / "mine")
    contents = [path.read_bytes() for path in sorted(place.iterdir())]
    with tarfile.open(tmp_path / "evil.tar", "w") as archive:
        for i, content in enumerate(contents):
            name = f"/etc/{i:03d}.png" if i % 2 else f"../../up/{i:03d}.png"
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for kind, name in ((tarfile.SYMTYPE, "soft.png"), (tarfile.LNKTYPE, "hard.png")):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, str(place / "000.png")
            archive.addfile(member)
    before = {*tmp_path.rglob("*")}
    images = load("cifar10", tmp_path / "evil.tar")
    assert len(images.train) + len(images.test) == 20
    assert "2 other files left out (2 links in an archive)" in capsys.readouterr().err
    new = {path.relative_to(tmp_path).parts[0] for path in {*tmp_path.rglob("*")} - before}
    assert new == {"cache"} and not Path("/etc/001.png").exists()


def test_a_tar_that_is_cut_off_is_named(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        archive.add(pngs(tmp_path / "mine"), "mine")
    whole = (tmp_path / "a.tar.gz").read_bytes()
    (tmp_path / "a.tar.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"a\.tar\.gz can't be read as a tar: .*allowed: .*--data"):
        load("cifar10", tmp_path / "a.tar.gz")


# Sizes and colours


@pytest.mark.parametrize(
    ("study", "side", "size"),
    [
        *(("mnist", *each) for each in ((8, 16), (16, 16), (28, 28), (30, 32), (256, 256))),
        *(("cifar10", *each) for each in ((16, 16), (24, 32), (32, 32), (48, 64), (65, 64))),
        ("celeba", 32, 32),
        ("celeba", 300, 64),
    ],
)
@pytest.mark.parametrize("form", ["folder", "npz"])
def test_images_keep_a_size_that_the_networks_take(
    tmp_path: Path,
    study: str,
    side: int,
    size: int,
    form: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    place = tmp_path / "m.npz"
    if form == "npz":
        pixels = RNG.integers(256, size=(20, side, side, 3), dtype=np.uint8)
        saved(place, images=pixels)
    else:
        place = pngs(tmp_path / "m", side=side)
    assert load(study, place).train.shape[2:] == (size, size)
    said = capsys.readouterr().err
    line = f"scaled to {size} x {size} pixels from {side} x {side}"
    assert (line in said) == (side != size) and said.count("\n") == 1
    assert ("from colour to grey" in said) == (study == "mnist")


def test_images_of_several_sizes_have_the_studys_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = pngs(tmp_path / "m", 19, 16)
    Image.new("RGB", (64, 64)).save(place / "z.png")
    assert load("cifar10", place).train.shape == (18, 3, 32, 32)
    assert "scaled to 32 x 32 pixels, because they are of several sizes" in capsys.readouterr().err
    saved(tmp_path / "a.npz", x=COLOUR[:, :20])
    assert load("celeba", tmp_path / "a.npz").train.shape == (36, 3, 64, 64)
    assert "from 20 x 32, and cut to the middle square" in capsys.readouterr().err


def test_an_entry_of_ones_own_has_one_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = str(saved(tmp_path / "a.npz", images=COLOUR))
    monkeypatch.setitem(data.DATASETS, "mine", images_in(place, channels=1, size=16))
    assert load("mine").train.shape == (36, 1, 16, 16)


def test_grey_images_become_colour(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for place in (pngs(tmp_path / "m", mode="L"), saved(tmp_path / "a.npz", images=GREY)):
        images = load("cifar10", place)
        assert images.train.shape[1:] == (3, 32, 32)
        assert np.ptp(all_of(images), axis=1).max() == 0
        assert "converted from grey to colour" in capsys.readouterr().err


def test_cifar10_is_known_by_its_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of the same layout with other labels is another data set."""
    arrays = {"train_images": SPLIT[0], "test_images": SPLIT[1]}
    arrays |= {"train_labels": LABELS[:30], "test_labels": LABELS[30:]}
    place = saved(tmp_path / "a.npz", **arrays)
    assert load("cifar10", place).name == "folder"
    hashes = {
        f"{part}_labels": data.files.sha256(arrays[f"{part}_labels"]) for part in ("train", "test")
    }
    monkeypatch.setattr(data.files, "CIFAR10_LABELS", hashes)
    assert load("cifar10", saved(tmp_path / "b.npz", **arrays)).name == "cifar10"
    assert load("mnist", tmp_path / "b.npz").name == "folder"
