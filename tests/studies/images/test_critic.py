"""The kind of f(x, z), a field of image specs: identity, networks, trainings, reports."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from bench import report, run
from bench.data import load as data
from bench.spec import columns
from bench.studies import STUDIES
from bench.studies.images import over_lambda, runs
from bench.studies.images.domain import domain
from bench.studies.images.spec import ImageSpec
from bench.studies.images.train import Trainer
from models.methods import METHODS

BEFORE = {
    ("toy_grid", "smoke"): "bec726339fd67054",
    ("toy_grid", "quick"): "773fae9030b88021",
    ("toy_grid", "paper"): "800bb3904199bbff",
    ("mnist", "smoke"): "35ca598896193319",
    ("mnist", "quick"): "e391faa2a4999d1c",
    ("mnist", "paper"): "2e2a3e2fc02bfd01",
    ("cifar10", "smoke"): "592b0d1b122c485e",
    ("cifar10", "quick"): "42adfeb54e99a60d",
    ("cifar10", "paper"): "1a3e625f3ec81f7f",
    ("celeba", "smoke"): "cc63fa2aaca3c4e0",
    ("celeba", "quick"): "2e8c80bcba5701eb",
    ("celeba", "paper"): "1e08df724e0d3d86",
}
"""Digests of ids, streams and configs, two seeds each.

They are of commit e8f8813, without the field, or of the commit that last changed the grid.
"""

OWN = {"mnist": "joint", "cifar10": "additive", "celeba": "additive"}
OTHER = {"joint": "additive", "additive": "joint"}
NETWORKS = [
    ("mnist", "suite"),
    *((n, k) for n in ("cifar10", "celeba") for k in ("suite", "paper")),
]


@pytest.mark.parametrize(("study", "scale"), BEFORE)
def test_no_identity_has_changed(study: str, scale: str) -> None:
    """A study whose grid changes needs another digest here; a training never gets another id."""
    specs = STUDIES[study].specs(scale, seeds=2)
    names = "".join(spec.id + spec.stream + spec.config for spec in specs)
    assert hashlib.sha256(names.encode()).hexdigest()[:16] == BEFORE[study, scale]


@pytest.mark.parametrize("study", OWN)
def test_rows_that_are_older_than_the_field_keep_their_ids(study: str) -> None:
    rows = STUDIES[study].load(report.REFERENCE, "quick")[0].to_pylist()
    old = [row for row in rows if not row["critic"]]
    assert old
    for row in old:
        spec = ImageSpec(**{name: row[name] for name in columns(ImageSpec)})
        assert (spec.id, spec.config) == (row["id"], row["config"])


def spec(study: str, networks: str = "suite", **fields: Any) -> ImageSpec:
    given = {"networks": [networks], **{name: [value] for name, value in fields.items()}}
    return STUDIES[study].specs("smoke", methods=["svae_r"], lams=[0.1], given=given)[0]


@pytest.mark.parametrize(("study", "networks"), NETWORKS)
@pytest.mark.parametrize("folder", ["", " folder 0123456789ab"])
def test_the_own_critic_by_name_is_the_same_training(
    study: str, networks: str, folder: str
) -> None:
    one = spec(study, networks, data=study + folder)
    named, other = (replace(one, critic=kind) for kind in (OWN[study], OTHER[OWN[study]]))
    assert named == one and named.critic == "" and named.id == one.id
    assert other.critic == OTHER[OWN[study]] and other.id != one.id
    assert (other.stream, other.config) == (one.stream, one.config)  # compared in pairs
    assert replace(other, critic=OWN[study]) == one


@pytest.mark.parametrize("study", OWN)
def test_the_command_finds_stored_rows_by_either_spelling(
    study: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = STUDIES[study].store(tmp_path, "quick")
    store.prepare()
    published = STUDIES[study].load(report.REFERENCE, "quick")[0].to_pylist()
    store.write(published, [])
    stored = {spec.id for spec in STUDIES[study].specs("quick")} & {row["id"] for row in published}

    def counts(*given: str) -> tuple[int, int]:
        asked = [study, "--scale", "quick", "--status", "--json", *given]
        assert run.main([*asked, "--results", str(tmp_path)]) == 0
        found = json.loads(capsys.readouterr().out)
        return found["done"], found["total"]

    done, total = counts()
    own, other = OWN[study], OTHER[OWN[study]]
    assert done == len(stored) and done
    assert counts("--set", f"critic={own}") == (done, total)
    assert counts("--set", f"critic=,{own}") == (done, total)
    assert counts("--set", f"critic={other}") == (0, total)
    assert counts("--set", f"critic={own},{other}") == (done, 2 * total)


def test_listing_specs_needs_no_torch(python: Any) -> None:
    listing = "STUDIES['mnist'].specs('quick', given={'critic': ['additive', 'joint']})"
    code = f"import sys; from bench.studies import STUDIES; print(len({listing})); "
    assert python("-c", code + "assert 'torch' not in sys.modules") == (0, "34\n", "")


def critic_of(study: str, networks: str, kind: str, method: str, role: str) -> Any:
    found = domain(study)
    nets = found.networks(METHODS[method], 1 / 16, len, networks, kind)
    return nets[role].double().eval()


def mixed_difference(study: str, critic: Any) -> float:
    """Of f(x, z) - f(x, z') - f(x', z) + f(x', z'), which is 0 of a sum of two functions."""
    of, rng = domain(study), torch.Generator().manual_seed(0)
    options: dict[str, Any] = {"generator": rng, "dtype": torch.float64}
    x = torch.rand(8, of.channels, of.size, of.size, **options)
    z = torch.randn(8, of.d_z, **options)
    noise = [torch.rand(8, *shape, **options) for shape in critic.noise]
    with torch.no_grad():
        f = [[critic(a, b, *noise) for b in (z, z.roll(1, 0))] for a in (x, x.roll(1, 0))]
    return float((f[0][0] - f[0][1] - f[1][0] + f[1][1]).abs().max())


@pytest.mark.parametrize(("study", "networks"), NETWORKS)
def test_an_additive_critic_is_a_sum_and_a_joint_one_is_not(study: str, networks: str) -> None:
    for kind in ("", "additive", "joint"):
        given = "" if kind == OWN[study] else kind  # as a spec has it
        critic = critic_of(study, networks, given, "svae_r", "critic")
        difference = mixed_difference(study, critic)
        assert len(critic.noise) == (2 if study != "mnist" and networks == "suite" else 0)
        assert (difference < 1e-12) == ((kind or OWN[study]) == "additive"), difference
        assert difference < 1e-12 or difference > 1e-4


@pytest.mark.parametrize("study", ["mnist", "cifar10"])
def test_both_critics_of_as_vae_follow_the_field(study: str) -> None:
    for role in ("critic_x", "critic_z"):
        critics = [
            critic_of(study, "suite", kind, "as_vae", role) for kind in ("", OTHER[OWN[study]])
        ]
        sums = [mixed_difference(study, critic) < 1e-12 for critic in critics]
        assert sums == [OWN[study] == "additive", OWN[study] != "additive"]


@pytest.mark.parametrize("study", OWN)
def test_the_joint_head_has_the_hidden_layer_of_mnist(study: str) -> None:
    kind = "" if study == "mnist" else "joint"
    nets = domain(study).networks(METHODS["svae_r"], 1.0, len, "suite", kind)
    head: Any = nets["critic"].head
    hidden, leaky, logit = head
    assert (hidden.out_features, leaky.negative_slope, logit.out_features) == (1024, 0.2, 1)


@pytest.mark.parametrize("study", OWN)
def test_weights_batches_and_noise_begin_alike_whatever_the_critic(study: str) -> None:
    one, other = (
        Trainer(each, data.load(each.data).train[:128])
        for each in (spec(study), spec(study, critic=OTHER[OWN[study]]))
    )
    ours, theirs = one.nets.state_dict(), other.nets.state_dict()
    apart = {name for name in ours.keys() | theirs.keys() if not name.startswith("critic.head")}
    assert apart == {name for name in theirs if not name.startswith("critic.head")}
    assert all(torch.equal(ours[name], theirs[name]) for name in apart)
    assert {k: v.shape for k, v in ours.items()} != {k: v.shape for k, v in theirs.items()}
    assert torch.equal(one.batch(0), other.batch(0))
    a, b = (each.draws(each.batch(0), "0 model").noise("z", 5) for each in (one, other))
    assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (["--set", "critic=both"], "critic is both; allowed: additive, joint"),
        (
            ["--only", "method=dcgan", "--set", "critic=additive"],
            "critic is additive, but dcgan has no f(x, z); allowed methods: svae_r, alice, ",
        ),
    ],
)
def test_a_critic_that_cannot_be_trained_gets_one_line(
    given: list[str], line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run.main(["mnist", "--scale", "smoke", *given, "--results", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert line in err and err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_the_own_critic_by_name_is_no_mistake_of_a_gan(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["mnist", "--scale", "smoke", "--only", "method=dcgan", "--set", "critic=joint"]
    assert run.main([*asked, "--dry-run"]) == 0
    assert "1 trainings" in capsys.readouterr().out


@pytest.mark.parametrize("study", ["mnist", "cifar10"])
def test_the_other_critic_trains_and_says_so(study: str, tmp_path: Path, no_report: None) -> None:
    kind = OTHER[OWN[study]]
    asked = [study, "--scale", "smoke", "--only", "method=svae_r", "--lam", "0.1"]
    small = {"critic": kind, "width": 1 / 16, "images": 128, "samples": 40}
    if study == "mnist":
        small |= {"temperatures": 4, "ais_images": 4}
    asked += [word for name, value in small.items() for word in ("--set", f"{name}={value}")]
    assert run.main([*asked, "--engine", "sequential", "--results", str(tmp_path)]) == 0
    frame = runs.runs(STUDIES[study], tmp_path, "smoke")
    (row,) = frame.to_dict("records")
    assert (row["critic"], row["status"]) == (kind, "ok")
    page = report.build(study, "smoke", tmp_path)
    assert f"The critic f(x, z) of these runs is {kind}" in page.texts()["report.md"]


def test_rows_of_another_critic_stay_out_of_the_studys_own_tables(tmp_path: Path) -> None:
    study = STUDIES["cifar10"]
    reference = study.store(report.REFERENCE, "quick").load()[0].to_pylist()
    mine = [row for row in reference if row["precision"] == "float32"]
    store = study.store(tmp_path, "quick")
    store.prepare()
    others = []
    for row in mine:
        fields: dict[str, Any] = {name: row[name] for name in columns(ImageSpec)}
        other = ImageSpec(**{**fields, "critic": "joint"})
        others.append({**row, "critic": "joint", "id": other.id})
    store.write([*mine, *others], [])
    kept = runs.runs(study, tmp_path, "quick")
    before = runs.runs(study, report.REFERENCE, "quick")
    assert set(kept["critic"]) == {""} and set(kept["id"]) <= set(before["id"]) and len(kept)
    assert kept.attrs["others"] == len(mine) * 2 - len(kept)
    assert "of these runs is" not in over_lambda.protocol(kept)
    joint = kept.assign(critic="joint")
    assert "is joint, and the study's own is not" in over_lambda.protocol(pd.DataFrame(joint))
