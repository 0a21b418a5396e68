"""Image studies on a GPU: recorded steps, trainings side by side, scores. `pytest -m gpu`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from bench.data import load as data
from bench.scores.metrics import IMAGES
from bench.scores.swd import Patches, distance
from bench.store import checkpoint
from bench.studies.images import evaluate, job
from bench.studies.images.domain import domain
from bench.studies.images.train import Model, Trainer, together
from models.precision import allow_tf32, exact
from tests.studies.images.test_train import DIGITS, MIXED, _job, same, spec

pytestmark = pytest.mark.gpu

PRECISIONS = ("float32", "tf32", "bf16")
TRAINED = [(study, method) for study in ("mnist", "cifar10") for method in domain(study).methods()]


@pytest.fixture(autouse=True)
def one_algorithm(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The same sums in the same order each time, so that equal trainings have equal bits."""
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    allow_tf32(False)
    yield
    allow_tf32(False)


def state(trainer: Trainer) -> dict[str, Tensor]:
    trainer.wait()
    return {name: tensor.cpu() for name, tensor in trainer.state().items()}


@pytest.mark.parametrize(("study", "method"), TRAINED)
def test_recorded_steps_equal_eager_steps(study: str, method: str) -> None:
    """In each precision: the first step is eager in both, two more are recorded in one of them."""
    digits = study == "mnist"
    images = "stand-in digits" if digits else "stand-in photos"
    train = torch.from_numpy(np.array(data.load(images).train[:24])).cuda()
    for precision in PRECISIONS:
        allow_tf32(precision == "tf32")
        one = spec(method, data=images, images=24, precision=precision)
        recorded, eager = (Trainer(one, train, "cuda", record=each) for each in (True, False))
        for each in together([recorded, eager]):
            assert not each or len(each) == 2
        assert recorded.graph and not eager.graph
        assert same(state(recorded), state(eager)), precision
        assert recorded.finite()


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_trainings_side_by_side_equal_trainings_one_at_a_time(precision: str) -> None:
    """Recorded and eager, of other methods and lengths, one that diverges; for long enough that a
    queue of one is still full when others end."""
    specs = [replace(one, precision=precision, epochs=10 * one.epochs) for one in MIXED]
    images = torch.from_numpy(np.array(DIGITS.train[:48])).cuda()
    alone = []
    for one in specs:
        trainer = Trainer(one, images, "cuda")
        trainer.train()
        alone.append(state(trainer))
    beside = [Trainer(one, images, "cuda", record=one != specs[-1]) for one in specs]
    list(together(beside))
    assert len({each.stream for each in beside}) == len(beside)
    assert [each.graph for each in beside] == [True, True, True, False]
    for each, expected in zip(beside, alone, strict=True):
        assert same(state(each), expected), each.spec.method


def test_a_training_goes_on_from_a_checkpoint(tmp_path: Path) -> None:
    """Of an early step, with trainings beside it; the seconds go on as well."""
    one = spec("svae_r", epochs=3, images=48)
    whole, stopped, other = (Trainer(one, DIGITS.train, "cuda") for _ in range(3))
    whole.train()
    for _ in together([stopped, other]):
        if stopped.step == 7:
            stopped.wait()
            checkpoint.save(tmp_path / "c", stopped.state())
            break
    found = checkpoint.load(tmp_path / "c")
    assert found is not None
    resumed = Trainer(one, DIGITS.train, "cuda")
    resumed.load(found)
    assert resumed.step == 7 and resumed.seconds == stopped.seconds > 0 and resumed.graph
    resumed.train()
    assert same(state(resumed), state(whole))


def test_a_job_trains_and_scores_several(tmp_path: Path) -> None:
    """Through its checkpoints as well: what is done is not done again."""
    specs = [spec(seed=seed, images=48) for seed in range(2)]
    specs.append(spec("dcgan", lam=0.0, images=48))
    asked = replace(_job(*specs, folder=tmp_path), device="cuda")
    rows, samples = job.train(asked, lambda share: None, IMAGES)
    again, _ = job.train(asked, lambda share: None, IMAGES)
    assert [row["id"] for row in rows] == [one.id for one in specs]
    assert len(samples) == 3
    for row, other in zip(rows, again, strict=True):
        assert row["status"] == "ok" and row["graph"] and row["train_seconds"] > 0
        assert other["train_seconds"] == row["train_seconds"]
        assert other["inception_score"] == row["inception_score"] > 1
        assert other["log_likelihoods"] == row["log_likelihoods"] and row["log_likelihood"] < 0


@pytest.mark.parametrize("study", ["mnist", "cifar10"])
def test_scores_of_the_same_weights_agree(study: str) -> None:
    found = evaluate.differences("cuda", study)
    assert max(found.values()) <= evaluate.AGREE, found
    assert {"inception_score", "frechet", "mse_x"} <= found.keys()


def test_the_sliced_wasserstein_distance_agrees() -> None:
    a, b = (torch.rand(200, 3, 64, 64, generator=torch.Generator().manual_seed(i)) for i in (0, 1))
    with exact():
        cpu, gpu = (
            distance(Patches.of(a.to(each)), Patches.of(b.to(each))) for each in ("cpu", "cuda")
        )
    assert gpu == pytest.approx(cpu, rel=evaluate.AGREE)


def test_annealing_of_a_decoder_agrees() -> None:
    """In float32 a chain may turn another way by rounding, so most images must agree, not all."""
    one = spec(temperatures=20, chains=4, ais_images=40)
    trainer = Trainer(one, DIGITS.train[:48])
    evaluate.freeze(trainer)
    bits = evaluate.test_bits(one, DIGITS, None)
    found = []
    for device in ("cpu", "cuda"):
        model = Model(one, device)
        model.nets.load_state_dict(trainer.nets.state_dict())
        model.nets.eval()
        with exact():
            found.append(evaluate.annealed_run(model, bits).finish())
    cpu, gpu = found
    for name in ("log_likelihood", "lower", "upper"):
        off = np.abs(getattr(gpu, name) - getattr(cpu, name))
        assert np.median(off) < 0.01, (name, off)
    assert gpu.acceptance == pytest.approx(cpu.acceptance, abs=0.01)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_weights_lie_as_products_are_rounded(precision: str) -> None:
    one = spec(data="stand-in photos", precision=precision)
    trainer = Trainer(one, data.load(one.data).train[:64], "cuda")
    weights = [p for p in trainer.nets.parameters() if p.dim() == 4 and min(p.shape) > 1]
    last = precision != "float32"
    assert weights
    assert all(p.is_contiguous(memory_format=torch.channels_last) == last for p in weights)
    allow_tf32(False)
    trainer.wait()
    evaluate.freeze(trainer)
    assert all(p.is_contiguous() for p in weights)
