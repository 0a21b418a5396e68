"""A data set is modelled as its entry says, and refused in one line where no network takes it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench.cli import UsageError
from bench.data import load as data
from bench.data.sources import images_in
from bench.studies.images.domain import check, data_of, dataset, domain
from bench.studies.images.spec import ImageSpec
from bench.studies.images.train import Trainer


def spec(name: str, **fields) -> ImageSpec:
    known = {"study": "celeba", "scale": "own", "method": "svae_r", "lam": 0.1, "seed": 1}
    return ImageSpec(**{**known, "data": name, "ais_images": 0, "epochs": 1, **fields})


def test_ones_own_images_are_trained_on(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = np.random.default_rng(0).integers(256, size=(20, 16, 16), dtype=np.uint8)
    np.savez(tmp_path / "m.npz", images=images)
    entry = images_in(str(tmp_path / "m.npz"), channels=1, size=16)
    monkeypatch.setitem(data.DATASETS, "mine", entry)
    found = data.load("mine")
    name = data_of("mine", found)
    assert name == f"mine folder {found.sha256[:12]}" and dataset(name) == "mine"
    own = spec(name, batch=6, width=0.125)
    check(own)
    trainer = Trainer(own, found.train)
    trainer.train()
    assert trainer.finite() and trainer.step == 3


@pytest.mark.parametrize(
    ("channels", "size", "fields", "line"),
    [
        (2, 32, {}, "channels of mine are 2; allowed: 1, 3"),
        (3, 48, {}, "size of mine is 48; allowed: "),
        (1, 18, {}, "size of mine is 18; allowed: 16, 20, "),
        (3, 64, {"method": "avb_ac"}, "method is avb_ac; allowed for mine: "),
        (1, 28, {"networks": "paper"}, "networks is paper; allowed for mine: suite"),
        (3, 32, {"ais_images": 9}, "ais_images is 9; allowed for mine: 0"),
        (3, 32, {"data": "yours"}, "data is yours; allowed: mnist, cifar10, celeba, "),
    ],
)
def test_what_no_network_takes_is_refused(
    monkeypatch: pytest.MonkeyPatch, channels: int, size: int, fields: dict, line: str
) -> None:
    monkeypatch.setitem(data.DATASETS, "mine", images_in("x", channels=channels, size=size))
    with pytest.raises(UsageError) as error:
        check(spec("mine", **fields))
    assert str(error.value).startswith(line) and "\n" not in str(error.value)


def test_entries_say_what_the_studies_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.studies.images.domain._NUMBERS", {})
    found = {name: domain(name) for name in data.DATASETS}
    assert [d.train for d in found.values()] == [60_000, 50_000, 162_770, 2000, 2000, 2000]
    classifiers = [entry.classifier for entry in data.DATASETS.values()]
    assert classifiers == ["mnist", "cifar10", "", "mnist", "cifar10", ""]
    assert [d.d_z for d in found.values()] == [64, 256, 64] * 2
    assert [d.efficiency for d in found.values()] == [0.25, 0.7, 0.55] * 2
    assert [(d.low, d.uniform) for d in found.values()] == [(0, False), *[(-1, True)] * 2] * 2
