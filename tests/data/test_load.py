"""The images a study is run on are the ones it says, and files of strangers do no harm."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import pickle
import struct
import sys
import tarfile
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torchvision
from PIL import Image

from bench.data import download, pictures
from bench.data import files as datafiles
from bench.data import load as data
from bench.data.__main__ import main
from bench.data.load import DataError, load
from bench.data.sources import images_in

RNG = np.random.default_rng(0)


pytestmark = pytest.mark.usefixtures("cache")


def files(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


class Evil:
    """Makes a folder where it is unpickled."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, ("unpickled",)


def harmless() -> bool:
    return not Path("unpickled").exists()


# Stand-ins


@pytest.mark.parametrize(
    ("name", "size", "sha256"),
    [
        ("stand-in digits", 28, "ad4486075b6117f1faec8e1a77d6889f03f02102082faafe63504300c31d8190"),
        ("stand-in photos", 32, "781a1df358175d563705d53283183d539b74cd8dbd9d4f98ae6ad7aa9a2483a6"),
        ("stand-in faces", 64, "b6bdb13711b4b81bf987f15db0a52cf07f4288a8284acdf163b2ac6c07d6afd6"),
    ],
    ids=lambda value: str(value)[:16],
)
def test_stand_ins_are_the_same_bytes_everywhere(name: str, size: int, sha256: str) -> None:
    images = load(name)
    channels = 1 if size == 28 else 3
    assert images.train.shape == (2000, channels, size, size)
    assert images.test.shape == (500, channels, size, size)
    assert images.train.dtype == np.uint8
    assert images.stand_in and images.name == name
    assert images.sha256 == sha256


@pytest.mark.parametrize("name", ["stand-in digits", "stand-in photos"])
def test_stand_ins_have_ten_classes_that_vary_and_can_be_told_apart(name: str) -> None:
    images = load(name)
    assert images.train_labels is not None and images.test_labels is not None
    assert np.bincount(images.train_labels).tolist() == [200] * 10
    assert np.bincount(images.test_labels).tolist() == [50] * 10
    both = np.concatenate([images.train, images.test]).reshape(2500, -1)
    assert len(np.unique(both, axis=0)) == 2500
    if name == "stand-in digits":
        x = np.c_[both / 255, np.ones(2500)]
    else:  # shape and texture, not colour or place
        grey = np.concatenate([images.train, images.test]).mean(1)
        x = np.abs(np.fft.fft2(grey - grey.mean((1, 2), keepdims=True))).reshape(2500, -1)
        x /= np.linalg.norm(x, axis=1, keepdims=True)
    train, test = x[:2000], x[2000:]
    target = np.eye(10)[images.train_labels]
    ridge = np.linalg.solve(train.T @ train + 0.1 * np.eye(x.shape[1]), train.T @ target)
    assert ((test @ ridge).argmax(1) == images.test_labels).mean() > 0.85


# MNIST


@pytest.fixture
def small_mnist(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """idx files of 40 + 20 random images that are taken for MNIST's, by name."""
    contents, hashes = {}, {}
    for name, file in datafiles.MNIST.items():
        shape = (40 if name.startswith("train") else 20, *(() if "labels" in name else (28, 28)))
        array = RNG.integers(256 if len(shape) == 3 else 10, size=shape, dtype=np.uint8)
        header = struct.pack(f">{1 + len(shape)}i", 0x800 + len(shape), *shape)
        contents[file] = header + array.tobytes()
        wide = array if len(shape) == 3 else array.astype(np.int64)
        hashes[name] = hashlib.sha256(wide.tobytes()).hexdigest()
    monkeypatch.setattr(datafiles, "MNIST_SHA256", hashes)
    return contents


def write_mnist(folder: Path, contents: dict[str, bytes], packed: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for file, content in contents.items():
        path = folder / (f"{file}.gz" if packed else file)
        path.write_bytes(gzip.compress(content) if packed else content)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("place", ["MNIST/raw", ""])
def test_mnist_is_read_as_it_is(
    tmp_path: Path, small_mnist: dict[str, bytes], place: str, packed: bool
) -> None:
    write_mnist(tmp_path / "d" / place, small_mnist, packed)
    images = load("mnist", tmp_path / "d")
    assert images.train.tobytes() == small_mnist["train-images-idx3-ubyte"][16:]
    assert images.train.shape == (40, 1, 28, 28) and images.train.dtype == np.uint8
    assert images.test_labels is not None and images.test_labels.dtype == np.int64
    assert images.test_labels.tolist() == list(small_mnist["t10k-labels-idx1-ubyte"][8:])
    assert images.name == "mnist" and not images.stand_in
    images.train[0] = 0  # may be handed to torch.from_numpy


def test_prepared_mnist_is_the_same_data_set(tmp_path: Path, small_mnist: dict[str, bytes]) -> None:
    write_mnist(tmp_path / "d", small_mnist, packed=True)
    before, after = load("mnist", tmp_path / "d"), data.prepare("mnist", tmp_path / "d")
    assert before.sha256 == after.sha256 == load("mnist").sha256
    assert np.array_equal(before.test, after.test)
    assert isinstance(load("mnist").train, np.memmap)


def flip(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


@pytest.mark.parametrize(
    ("damage", "packed", "message"),
    [
        (lambda content: content[:-1], False, "damaged"),
        (lambda content: content + b"x", False, "damaged"),
        (lambda content: content[:4] + content[5:] + b"x", False, "damaged"),
        (lambda content: b"", False, "damaged"),
        (lambda content: gzip.compress(content)[:-9], True, "can't be read"),
        (lambda content: flip(gzip.compress(content)), True, "can't be read"),
        (lambda content: gzip.compress(content + b"\0" * 10**7), True, "damaged"),
        (lambda content: b"<html>not found</html>", True, "damaged"),
    ],
)
def test_files_of_mnist_that_are_not_whole_are_refused(
    tmp_path: Path,
    small_mnist: dict[str, bytes],
    damage: Callable[[bytes], bytes],
    packed: bool,
    message: str,
) -> None:
    write_mnist(tmp_path / "d", small_mnist, packed)
    for path in (tmp_path / "d").iterdir():
        if "t10k-labels" in path.name:
            path.write_bytes(damage(small_mnist["t10k-labels-idx1-ubyte"]))
    with pytest.raises(DataError, match=message) as error:
        load("mnist", tmp_path / "d")
    assert "t10k-labels" in str(error.value) and "\n" not in str(error.value)


def test_files_of_mnists_layout_with_other_content_are_another_data_set(
    tmp_path: Path, small_mnist: dict[str, bytes]
) -> None:
    """A bit, a label or a part that differs: none of these is MNIST, and none is damaged."""
    write_mnist(tmp_path / "d", small_mnist, packed=True)
    assert load("mnist", tmp_path / "d").name == "mnist"
    for file in small_mnist:
        write_mnist(tmp_path / file, small_mnist | {file: flip(small_mnist[file])}, packed=False)
        images = load("mnist", tmp_path / file)
        assert images.name == "folder" and images.train.shape == (40, 1, 28, 28)
        assert images.test_labels is not None and len(images.test_labels) == 20
        (tmp_path / file / file).unlink()
        if "t10k" in file or "labels" in file:
            assert load("mnist", tmp_path / file).name == "folder"


def test_mnist_in_one_file_is_mnist(tmp_path: Path, small_mnist: dict[str, bytes]) -> None:
    """Keras has such a file."""
    arrays = {}
    for name, file in (("x_train", "train-images-idx3"), ("x_test", "t10k-images-idx3")):
        pixels = np.frombuffer(small_mnist[f"{file}-ubyte"][16:], np.uint8)
        arrays[name] = pixels.reshape(-1, 28, 28)
        labels = file.replace("images-idx3", "labels-idx1")
        arrays[name.replace("x", "y")] = np.frombuffer(small_mnist[f"{labels}-ubyte"][8:], np.uint8)
    np.savez(tmp_path / "mnist.npz", **arrays)
    assert load("mnist", tmp_path / "mnist.npz").name == "mnist"


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="0 images taken"):
        load("mnist", tmp_path / "here")
    with pytest.raises(DataError, match="does not exist"):
        load("mnist", tmp_path / "nowhere")
    with pytest.raises(DataError, match="no data set svhn, only mnist, cifar10"):
        load("svhn")
    with pytest.raises(DataError, match=r"no cifar10 in .*cifar10\.npz"):
        load("cifar10", tmp_path / "here")


# Static bits


@pytest.fixture
def small_bits(monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    bits = RNG.integers(2, size=(20, 784), dtype=np.uint8)
    monkeypatch.setattr(datafiles, "BITS", bits.shape)
    monkeypatch.setattr(datafiles, "BITS_SHA256", hashlib.sha256(bits.tobytes()).hexdigest())
    return bits


def as_amat(bits: np.ndarray) -> bytes:
    return "".join(" ".join(map(str, row)) + " \n" for row in bits).encode()


def test_static_bits_from_either_file(tmp_path: Path, small_bits: np.ndarray) -> None:
    np.savez(tmp_path / "binarized_mnist.npz", test=small_bits, train=small_bits[:1])
    assert np.array_equal(data.static_bits(tmp_path), small_bits)
    (tmp_path / "binarized_mnist.npz").unlink()
    text = tmp_path / "binarized_mnist_test.amat"
    text.write_bytes(as_amat(small_bits))
    assert np.array_equal(data.static_bits(tmp_path), small_bits)
    text.write_bytes(as_amat(1 - small_bits))
    with pytest.raises(DataError, match="binarized otherwise"):
        data.static_bits(tmp_path)
    text.write_bytes(as_amat(small_bits)[:-2000])
    with pytest.raises(DataError, match="damaged"):
        data.static_bits(tmp_path)
    text.unlink()
    with pytest.raises(DataError, match="allowed: binarized"):
        data.static_bits(tmp_path)


REAL = os.environ.get("SVAE_BENCH_TEST_DATA", "")


@pytest.mark.skipif(not REAL, reason="SVAE_BENCH_TEST_DATA names no folder with MNIST and its bits")
def test_real_bits_are_mnist_in_the_order_of_the_labels() -> None:
    """No bit contradicts its grey value, and images moved by one place contradict at once."""
    images, bits = load("mnist", Path(REAL)), data.static_bits(Path(REAL))
    assert images.test_labels is not None
    order = np.argsort(images.test_labels, kind="stable")
    assert np.array_equal(images.test_labels[order], data.static_labels())

    def contradictions(grey: np.ndarray) -> int:
        return int(((grey == 0) & (bits == 1)).sum() + ((grey == 255) & (bits == 0)).sum())

    grey = images.test.reshape(-1, 784)[order]
    assert contradictions(grey) == 0
    assert contradictions(np.roll(grey, 1, axis=0)) > 10**5


# CIFAR-10


def cifar_arrays(n: int = 5, test: int = 4) -> dict[str, np.ndarray]:
    """n images a batch, as an .npz holds them."""
    return {
        "train_images": RNG.integers(256, size=(5 * n, 32, 32, 3), dtype=np.uint8),
        "train_labels": RNG.integers(10, size=5 * n, dtype=np.uint8),
        "test_images": RNG.integers(256, size=(test, 32, 32, 3), dtype=np.uint8),
        "test_labels": RNG.integers(10, size=test, dtype=np.uint8),
    }


class Python2Pickler(pickle._Pickler):  # pyright: ignore[reportAttributeAccessIssue]
    """Writes every string as Python 2's `str`, as in the batches of CIFAR-10."""

    dispatch: ClassVar[dict[type, Any]] = dict(
        pickle._Pickler.dispatch  # pyright: ignore[reportAttributeAccessIssue]
    )

    def save_old(self, obj: str | bytes) -> None:
        raw = obj.encode("latin1") if isinstance(obj, str) else obj
        opcode = b"T" + struct.pack("<i", len(raw))
        self.write(opcode + raw)  # pyright: ignore[reportAttributeAccessIssue]
        self.memoize(obj)  # pyright: ignore[reportAttributeAccessIssue]

    dispatch[bytes] = dispatch[str] = save_old


BATCHES = datafiles.CIFAR10[1:]


def batches(arrays: dict[str, np.ndarray]) -> dict[str, bytes]:
    """The six files of cifar-10-batches-py."""
    n = len(arrays["train_labels"]) // 5
    contents = {}
    for i, name in enumerate(BATCHES):
        part = "test" if name == "test_batch" else "train"
        rows = slice(None) if part == "test" else slice(i * n, (i + 1) * n)
        flat = arrays[f"{part}_images"][rows].transpose(0, 3, 1, 2).reshape(-1, 3072)
        labels = [int(label) for label in arrays[f"{part}_labels"][rows]]
        buffer = io.BytesIO()
        Python2Pickler(buffer, protocol=2).dump({"data": flat, "labels": labels, "x": "é"})
        contents[name] = buffer.getvalue()
    return contents


def trust(
    monkeypatch: pytest.MonkeyPatch, contents: dict[str, bytes], archive: bytes = b""
) -> None:
    """Has these bytes taken for the published ones."""
    md5 = [[name, hashlib.md5(content).hexdigest()] for name, content in contents.items()]
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "train_list", md5[:-1])
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "test_list", md5[-1:])
    monkeypatch.setattr(datafiles, "CIFAR10_SHA256", hashlib.sha256(archive).hexdigest())


def tar_of(contents: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in contents.items():
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def test_every_form_of_cifar10_is_the_same_data_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrays = cifar_arrays()
    contents = batches(arrays)
    archive = tar_of(contents)
    trust(monkeypatch, contents, archive)
    for place in ("npz", "archive", "folder/cifar-10-batches-py"):
        (tmp_path / place).mkdir(parents=True)
    np.savez(tmp_path / "npz" / "cifar10.npz", **arrays)  # pyright: ignore[reportArgumentType]
    (tmp_path / "archive" / "cifar-10-python.tar.gz").write_bytes(archive)
    for name, content in contents.items():
        (tmp_path / "folder" / "cifar-10-batches-py" / name).write_bytes(content)
    places = ["npz", "npz/cifar10.npz", "archive", "archive/cifar-10-python.tar.gz", "folder"]
    every = [load("cifar10", tmp_path / place) for place in places]
    assert len({images.sha256 for images in every}) == 1
    for images in every:
        assert images.name == "cifar10"
        assert np.array_equal(images.train, arrays["train_images"].transpose(0, 3, 1, 2))
        assert np.array_equal(images.test, arrays["test_images"].transpose(0, 3, 1, 2))
        assert images.train_labels is not None and images.train_labels.dtype == np.int64
        assert np.array_equal(images.train_labels, arrays["train_labels"])
    assert files(tmp_path / "here") == []


@pytest.mark.parametrize("packed", [False, True])
def test_no_pickle_runs_whose_hash_is_not_known(tmp_path: Path, packed: bool) -> None:
    evil = dict.fromkeys(BATCHES, pickle.dumps(Evil()))
    if packed:
        (tmp_path / "cifar-10-python.tar.gz").write_bytes(tar_of(evil))
    else:
        for name, content in evil.items():
            (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match="another SHA-256" if packed else "another MD5"):
        load("cifar10", tmp_path)
    assert harmless() and not list((tmp_path / "cache").rglob("*.npy"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_images": np.zeros((25, 3, 32, 32), np.uint8)}, r"transpose\(0, 2, 3, 1\)"),
        ({"train_images": np.full((25, 32, 32, 3), 1.5)}, "floats from 1.5 to 1.5"),
        ({"train_images": np.full((25, 32, 32, 3), np.nan)}, "NaN"),
        ({"train_images": np.zeros((25, 32, 32, 3), np.int64)}, "pixels of type int64"),
        ({"train_images": np.full((25, 32, 32, 3), 255, np.uint16)}, "no value is above 255"),
        ({"train_images": np.full((25, 32, 32, 3), "a")}, "pixels of type"),
        ({"train_labels": np.zeros(24, np.uint8)}, r"uint8 \(24,\); .* \(25,\)"),
        ({"train_labels": np.zeros((25, 1), np.uint8)}, r"\(25, 1\); .* \(25,\)"),
        ({"train_labels": np.zeros(25)}, "float64 .*int64"),
        ({"train_labels": np.full(25, 10, np.uint8)}, "from 10 to 10; allowed: .*0 to 9"),
        ({"test_labels": None}, "no array test_labels"),
        (
            {"test_labels": np.array([Evil()], dtype=object)},
            "damaged.*test_images, test_labels.*--data",
        ),
    ],
)
def test_an_npz_of_something_else_is_refused(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    arrays = {k: v for k, v in (cifar_arrays() | change).items() if v is not None}
    np.savez(tmp_path / "cifar10.npz", **arrays)  # pyright: ignore[reportArgumentType]
    with pytest.raises(DataError, match=message):
        load("cifar10", tmp_path)
    assert harmless()


def test_damaged_and_huge_npz_files_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "cifar10.npz"
    np.savez_compressed(path, **cifar_arrays())  # pyright: ignore[reportArgumentType]
    content = path.read_bytes()
    monkeypatch.setattr(datafiles, "NPZ_LIMIT", 10**4)
    with pytest.raises(DataError, match="would unpack to more"):
        load("cifar10", path)
    monkeypatch.undo()
    for damaged in (content[:-100], b"", pickle.dumps(Evil()), b"<html></html>"):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"damaged.*allowed: .*train_labels.*--data"):
            load("cifar10", path)
    assert harmless()


# CelebA and folders of images


def picture(width: int = 178, height: int = 218) -> Image.Image:
    return Image.fromarray(RNG.integers(256, size=(height, width, 3), dtype=np.uint8))


def folder_of(folder: Path, n: int = 20, **size: int) -> Path:
    folder.mkdir(parents=True)
    for i in range(1, n + 1):
        picture(**size).save(folder / f"{i:06d}.jpg")
    return folder


def test_celeba_is_cut_as_the_authors_file_was(tmp_path: Path) -> None:
    place = folder_of(tmp_path / "d" / "celeba" / "img_align_celeba")
    images = load("celeba", tmp_path / "d")
    assert images.name == "celeba" and images.train_labels is None and not images.stand_in
    assert images.train.shape == (18, 3, 64, 64) and images.test.shape == (2, 3, 64, 64)
    for index, image in ((1, images.train[0]), (10, images.test[0]), (20, images.test[1])):
        with Image.open(place / f"{index:06d}.jpg") as file:  # Fuel's convert_celeba_64
            fuel = file.resize((64, 78), Image.Resampling.LANCZOS).crop((0, 7, 64, 71))
        assert np.array_equal(image, np.asarray(fuel).transpose(2, 0, 1))


@pytest.mark.parametrize("form", ["txt", "csv"])
def test_celebas_official_split(tmp_path: Path, form: str) -> None:
    place = folder_of(tmp_path / "img_align_celeba")
    by_tenths = load("celeba", tmp_path)
    parts = [0] * 12 + [1] * 5 + [2] * 3
    gap, head = (" ", "") if form == "txt" else (",", "image_id,partition\n")
    lines = [f"{i + 1:06d}.jpg{gap}{part}\n" for i, part in enumerate(parts)]
    (tmp_path / f"list_eval_partition.{form}").write_text(head + "".join(lines))
    images = load("celeba", tmp_path)
    assert (len(images.train), len(images.test)) == (12, 3)
    assert np.array_equal(images.train[9], by_tenths.test[0])  # 000010.jpg
    assert np.array_equal(images.test[-1], by_tenths.test[1])  # 000020.jpg
    picture().save(place / "000021.jpg")
    with pytest.raises(DataError, match=r"000021\.jpg in .* is not in .*list_eval_partition"):
        load("celeba", tmp_path)
    (tmp_path / f"list_eval_partition.{form}").write_text("<html>\n")
    with pytest.raises(DataError, match="damaged"):
        load("celeba", tmp_path)


def zip_of(path: Path, contents: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return path


def test_a_zip_is_as_good_as_its_folder_and_its_names_are_no_paths(tmp_path: Path) -> None:
    place = folder_of(tmp_path / "img_align_celeba")
    contents = {f"img_align_celeba/{p.name}": p.read_bytes() for p in place.iterdir()}
    packed = zip_of(tmp_path / "img_align_celeba.zip", {"readme.txt": b"", **contents})
    assert load("celeba", packed).sha256 == load("celeba", place).sha256
    evil = {f"../../{i}/../x{i}.jpg": c for i, c in enumerate(contents.values())}
    evil |= {"/etc/x.jpg": evil.pop(next(iter(evil)))}
    before = files(tmp_path)
    images = load("celeba", zip_of(tmp_path / "evil.zip", evil))
    assert images.name == "folder" and len(images.train) == 18
    new = set(files(tmp_path)) - set(before) - {"evil.zip"}
    assert all(file.startswith("cache/prepared/celeba-") for file in new)
    (tmp_path / "broken.zip").write_bytes(packed.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"can't be read as a zip.* allowed: .*--data"):
        load("celeba", tmp_path / "broken.zip")


def test_a_damaged_file_in_the_cache_is_named_before_anything_is_downloaded(cache: Path) -> None:
    (cache / "celeba").mkdir(parents=True)
    (cache / "celeba" / "img_align_celeba.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match="can't be read as a zip"):
        load("celeba")


def test_any_images_stand_in(tmp_path: Path) -> None:
    place = tmp_path / "mine"
    (place / "sub").mkdir(parents=True)
    for i in range(10):
        picture(50, 40).save(place / f"a{i}.png")
        picture(20, 33).save(place / "sub" / f"b{i}.WEBP", lossless=True)
    picture(40, 40).convert("L").save(place / "grey.png")
    (place / "notes.txt").write_text("no image")
    images = load("cifar10", place)
    assert images.name == "folder" and images.train_labels is None and images.test_labels is None
    assert images.train.shape == (19, 3, 32, 32) and images.test.shape == (2, 3, 32, 32)
    assert load("celeba", place).train.shape == (19, 3, 64, 64)
    assert data.prepare("mnist", place).train.shape == (19, 1, 28, 28)


@pytest.mark.parametrize(("channels", "size"), [(1, 16), (3, 128)])
@pytest.mark.parametrize("form", ["folder", "zip", "npz"])
def test_images_of_ones_own_need_an_entry_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, channels: int, size: int
) -> None:
    place = folder_of(tmp_path / "mine", 20, width=200, height=170)
    if form == "zip":
        place = zip_of(tmp_path / "m.zip", {p.name: p.read_bytes() for p in place.iterdir()})
    elif form == "npz":
        place = tmp_path / "m.npz"
        square = RNG.integers(256, size=(20, size, size, channels), dtype=np.uint8)
        np.savez(place, images=square[..., 0] if channels == 1 else square)
    entry = images_in(str(place), channels=channels, size=size)
    monkeypatch.setitem(data.DATASETS, "mine", entry)
    images = load("mine")
    assert images.train.shape == (18, channels, size, size) and images.train.dtype == np.uint8
    assert images.test.shape == (2, channels, size, size)
    assert (images.name, images.train_labels, images.stand_in) == ("folder", None, False)
    assert load("mine", place).sha256 == images.sha256 == data.prepare("mine").sha256
    if form == "folder":
        with Image.open(place / "000010.jpg") as file:
            whole = file.convert("RGB" if channels == 3 else "L")
        side = round(200 * size / 170)
        left = (side - size) // 2
        scaled = whole.resize((side, size), Image.Resampling.LANCZOS)
        expected = np.asarray(scaled.crop((left, 0, left + size, size)))
        assert np.array_equal(images.test[0], expected.reshape(size, size, -1).transpose(2, 0, 1))
    with pytest.raises(DataError, match=r"no mine in .*allowed: .*folder, .zip or .tar of images"):
        load("mine", tmp_path / "here")


def png_header(width: int, height: int) -> bytes:
    """A small PNG file that says it has so many pixels."""
    content = bytearray()
    buffer = io.BytesIO()
    Image.new("L", (1, 1)).save(buffer, "PNG")
    content += buffer.getvalue()
    content[16:24] = struct.pack(">ii", width, height)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    return bytes(content)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<html>", "allowed: JPEG"),
        (b"", "is empty"),
        (png_header(9000, 8000), "9000 x 8000 pixels: refused"),
        (png_header(10**5, 10**5), "more than .* pixels: refused"),
        (png_header(10**4, 99), "at most 100 times"),
        (png_header(64, 64), "not a whole image"),
        (b"\0" * (pictures.BYTES_LIMIT + 1), "larger than 64 MiB"),
    ],
)
def test_an_image_that_is_none_or_a_bomb_is_named(
    tmp_path: Path, content: bytes, message: str
) -> None:
    place = folder_of(tmp_path / "d", 10, width=40, height=40)
    (place / "bad.png").write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        load("celeba", place)
    assert "bad.png" in str(error.value) and "\n" not in str(error.value)
    contents = {path.name: path.read_bytes() for path in place.iterdir()}
    with pytest.raises(DataError, match=message):
        load("celeba", zip_of(tmp_path / "bad.zip", contents))
    assert not list((tmp_path / "cache").rglob("about.json"))
    assert not list((tmp_path / "cache").rglob("*.npy"))


def test_too_few_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r": 9; allowed: at least 10"):
        load("celeba", folder_of(tmp_path / "d", 9))


# What is prepared


def npz_of_celeba(path: Path, n: int = 20) -> np.ndarray:
    images = RNG.integers(256, size=(n, 64, 64, 3), dtype=np.uint8)
    np.savez(path, images=images)
    return images


def test_the_source_is_read_once_and_again_when_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "celeba64.npz"
    images = npz_of_celeba(source)
    reads = []
    monkeypatch.setattr(datafiles, "npz", lambda *a, npz=datafiles.npz: reads.append(a) or npz(*a))
    first, second = load("celeba", tmp_path), load("celeba", source)
    third = load("celeba", tmp_path)
    assert len(reads) == 2  # once for the folder, once for the file given by name
    assert first.sha256 == second.sha256 == third.sha256
    assert np.array_equal(third.test, images[9::10].transpose(0, 3, 1, 2))
    assert isinstance(third.train, np.memmap)
    changed = npz_of_celeba(source)
    fourth = load("celeba", tmp_path)
    assert np.array_equal(fourth.test, changed[9::10].transpose(0, 3, 1, 2))
    assert fourth.sha256 != first.sha256
    assert np.array_equal(third.test, images[9::10].transpose(0, 3, 1, 2))  # still open, unchanged
    fourth.train[:] = 0  # stays here
    assert load("celeba", tmp_path).train.any()


KILL = """
import json, os, sys
from pathlib import Path
from bench.data import load as data
from bench.data import pictures
from bench.data.load import load, prepare

old, new = Path("old.npz"), Path("new.npz")

def killed_at(step):
    count = 0
    def deadly(call):
        def wrapped(*arguments, **kw):
            nonlocal count
            count += 1
            if count == step:
                os._exit(9)
            return call(*arguments, **kw)
        return wrapped
    os.replace, os.fsync = map(deadly, (os.replace, os.fsync))
    Path.unlink, data.shutil.rmtree = map(deadly, (Path.unlink, data.shutil.rmtree))
    prepare("cifar10", new)

for step in range(1, 40):
    prepare("cifar10", old)  # a killed run is in nobody's way
    child = os.fork()
    if not child:
        killed_at(step)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    whole = data.read(Path("cache/prepared/cifar10"), check=True) is not None
    print(json.dumps([status, whole, load("cifar10").sha256]))
    if status == 0:
        break
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_killed_at_any_step_it_is_the_old_or_the_new_and_whole(
    tmp_path: Path, cache: Path, python: Callable[..., tuple[int, str, str]]
) -> None:
    sha256 = []
    for name in ("old.npz", "new.npz"):
        np.savez(tmp_path / name, **cifar_arrays())  # pyright: ignore[reportArgumentType]
        sha256.append(load("cifar10", tmp_path / name).sha256)
    status, out, error = python("-c", KILL)
    assert status == 0, error
    *killed, finished = [json.loads(line) for line in out.splitlines()]
    assert finished == [0, True, sha256[1]]
    assert len(killed) >= 10
    assert all(status == 9 and whole for status, whole, _ in killed)
    assert {now for _, _, now in killed} == set(sha256)
    left = {path.name for path in (cache / "prepared" / "cifar10").iterdir()} - {".lock"}
    new = sha256[1][:16]
    assert left == {"about.json", f"images-{new}.npy", f"labels-{new}.npy"}


def test_the_old_stays_whole_when_the_disk_is_full_and_for_who_has_it_open(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    npz_of_celeba(tmp_path / "old.npz")
    npz_of_celeba(tmp_path / "new.npz")
    old = data.prepare("celeba", tmp_path / "old.npz").sha256

    def full(_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(DataError, match="No space left on device"):
        patch.setattr(os, "fsync", full)
        data.prepare("celeba", tmp_path / "new.npz")
    assert load("celeba").sha256 == old
    folder = cache / "prepared" / "celeba"
    assert not (folder / ".draft").exists()
    with open(folder / "about.json") as reader:  # a process that opened it just before
        assert data.prepare("celeba", tmp_path / "new.npz").sha256 != old
        assert json.load(reader)["sha256"] == old
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SVAE_BENCH_DATA", str(tmp_path / "file"))
    with pytest.raises(DataError, match="choose another cache"):
        load("celeba", tmp_path / "new.npz")


def test_damage_to_what_was_prepared_is_found(tmp_path: Path, cache: Path) -> None:
    np.savez(tmp_path / "a.npz", **cifar_arrays())  # pyright: ignore[reportArgumentType]
    data.prepare("cifar10", tmp_path / "a.npz")
    folder = cache / "prepared" / "cifar10"
    assert main(["prepare", "cifar10", "--check"]) == 0
    for path in sorted(p for p in folder.iterdir() if p.name != ".lock"):
        content = path.read_bytes()
        for damaged in (content[:-1], b"", content + b"x"):
            path.write_bytes(damaged)
            with pytest.raises(DataError, match=r"is damaged.* -m bench.data prepare cifar10 "):
                load("cifar10")
        if path.suffix == ".npy":
            path.unlink()
            with pytest.raises(DataError, match=r"is damaged.* -m bench.data prepare cifar10 "):
                load("cifar10")
            path.write_bytes(flip(content))
            load("cifar10")
            assert main(["prepare", "cifar10", "--check"]) == 2
        path.write_bytes(content)
        assert main(["prepare", "cifar10", "--check"]) == 0


# Downloads


@pytest.fixture
def server() -> Iterator[tuple[str, dict[str, Any]]]:
    """A web server on this machine: its address, and what it answers to each path."""
    answers: dict[str, Any] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = answers.get(self.path.rpartition("/")[2])
            if answer is None:
                self.send_error(404)
                return
            content, length = answer if isinstance(answer, tuple) else (answer, len(answer))
            self.send_response(200)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}", answers
        running.shutdown()
        thread.join()


RIGHT = bytes(range(256)) * 100
HTML = b"<!DOCTYPE html><html><title>Quota exceeded</title></html>"
WRONG = [HTML, RIGHT[:-1], flip(RIGHT), (RIGHT[:-1], len(RIGHT)), b"", None]
"""A page, too short, one bit, cut off on the way, empty, not found."""


def test_a_download_appears_only_when_it_is_right(
    tmp_path: Path, server: tuple[str, dict[str, Any]]
) -> None:
    url, answers = server
    path = tmp_path / "to" / "file"

    def exact(draft: Path) -> None:
        if draft.read_bytes() != RIGHT:
            raise DataError("no")

    sha256 = hashlib.sha256(RIGHT).hexdigest()
    for how in ({"sha256": sha256}, {"check": exact}):
        for wrong in WRONG:
            answers["file"] = wrong
            with pytest.raises(DataError, match="by hand") as error:
                download.fetch(f"{url}/file", path, **how)  # pyright: ignore[reportArgumentType]
            assert f"{url}/file" in str(error.value) and "\n" not in str(error.value)
            assert files(tmp_path / "to") == []
        answers["file"] = RIGHT
        download.fetch(f"{url}/file", path, **how)  # pyright: ignore[reportArgumentType]
        assert files(tmp_path / "to") == ["file"] and path.read_bytes() == RIGHT
        path.unlink()
    with pytest.raises(ValueError, match="not HTTPS"):
        download.fetch("http://example.org/file", path, sha256=sha256)
    with pytest.raises(DataError, match="can't be downloaded"):
        download.fetch("http://127.0.0.1:9/file", path, sha256=sha256)


def test_mnist_is_downloaded_once_and_the_rest_after_a_failure(
    cache: Path,
    server: tuple[str, dict[str, Any]],
    small_mnist: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url, answers = server
    packed = {f"{name}.gz": gzip.compress(content) for name, content in small_mnist.items()}
    monkeypatch.setattr(download, "MNIST_URL", url)
    answers |= packed | {"t10k-labels-idx1-ubyte.gz": HTML}
    with pytest.raises(DataError, match="did not give the file it should"):
        load("mnist")
    assert len(files(cache / "MNIST" / "raw")) == 3
    answers.clear()
    answers["t10k-labels-idx1-ubyte.gz"] = packed["t10k-labels-idx1-ubyte.gz"]
    assert load("mnist").train.shape == (40, 1, 28, 28)
    answers.clear()
    assert load("mnist").train.shape == (40, 1, 28, 28)


def test_static_bits_are_downloaded_and_checked(
    cache: Path,
    server: tuple[str, dict[str, Any]],
    small_bits: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url, answers = server
    monkeypatch.setattr(download, "BITS_URL", url)
    for wrong in (HTML, as_amat(1 - small_bits), as_amat(small_bits)[:-9]):
        answers["binarized_mnist_test.amat"] = wrong
        with pytest.raises(DataError, match="did not give the file it should"):
            data.static_bits()
        assert files(cache) == []
    answers["binarized_mnist_test.amat"] = as_amat(small_bits)
    assert np.array_equal(data.static_bits(), small_bits)


def test_cifar10_is_downloaded_and_prepared(
    server: tuple[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, answers = server
    arrays = cifar_arrays()
    contents = batches(arrays)
    archive = tar_of(contents)
    trust(monkeypatch, contents, archive)
    monkeypatch.setattr(download, "CIFAR10_SHA256", datafiles.CIFAR10_SHA256)
    monkeypatch.setattr(download, "CIFAR10_URL", url)
    answers["cifar-10-python.tar.gz"] = archive[:-1]
    with pytest.raises(DataError, match="another SHA-256"):
        load("cifar10")
    answers["cifar-10-python.tar.gz"] = archive
    assert np.array_equal(load("cifar10").test, arrays["test_images"].transpose(0, 3, 1, 2))
    answers.clear()
    assert len(load("cifar10").train) == 25


def test_celeba_that_google_refuses_is_had_by_hand(
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def failing(line: str) -> None:
        assert main(["prepare", "celeba"]) == 2
        out, error = capsys.readouterr()
        assert not out and error.count("\n") == 1 and line in error
        assert "mmlab.ie.cuhk.edu.hk" in error and "prepare celeba --from" in error

    place = folder_of(tmp_path / "img_align_celeba")
    contents = {f"img_align_celeba/{p.name}": p.read_bytes() for p in place.iterdir()}
    packed = zip_of(tmp_path / "x.zip", contents).read_bytes()
    parts = "".join(f"{p.name} {2 * (i > 15)}\n" for i, p in enumerate(sorted(place.iterdir())))
    answers = {"list_eval_partition.txt": parts.encode(), "img_align_celeba.zip": HTML}
    pins = answers | {"img_align_celeba.zip": packed}
    ids = {name: (name, hashlib.sha256(content).hexdigest()) for name, content in pins.items()}
    monkeypatch.setattr(download, "CELEBA", ids)

    monkeypatch.setitem(sys.modules, "gdown", None)
    failing("needs gdown")
    gdown = SimpleNamespace()
    monkeypatch.setitem(sys.modules, "gdown", gdown)

    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("Cannot retrieve the public link\nof the file.")

    gdown.download = refuse
    failing("Cannot retrieve the public link of the file.")
    gdown.download = lambda url, output, quiet: Path(output).write_bytes(
        answers[url.partition("=")[2]]
    )
    failing("another SHA-256")
    assert files(cache) == ["celeba/list_eval_partition.txt"]
    answers["img_align_celeba.zip"] = packed
    assert main(["prepare", "celeba"]) == 0
    assert "16 + 4 images (celeba) of 3 x 64 x 64" in capsys.readouterr().out


# The command


def test_the_command(
    tmp_path: Path,
    python: Callable[..., tuple[int, str, str]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    np.savez(tmp_path / "cifar10.npz", **cifar_arrays())  # pyright: ignore[reportArgumentType]
    command = ("-m", "bench.data", "prepare", "cifar10")
    status, out, error = python(*command, "--from", "cifar10.npz", "--cache", "c")
    assert (status, error) == (0, "")
    sha256 = load("cifar10", tmp_path / "c").sha256
    assert out.startswith("cifar10: 25 + 4 images (cifar10) of 3 x 32 x 32") and sha256 in out
    (tmp_path / "cache").mkdir()
    for arguments, message in (
        (["--from", "nowhere"], "nowhere does not exist"),
        (["--from", str(tmp_path / "cache")], "allowed: cifar10.npz"),
        (["--check"], "no cifar10 has been prepared"),
    ):
        assert main(["prepare", "cifar10", *arguments]) == 2
        out, error = capsys.readouterr()
        assert message in error and error.count("\n") == 1 and not out
