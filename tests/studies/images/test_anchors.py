"""What is measured beside a model's scores: anchors, batch norm both ways, other classifiers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from bench.data import load as data
from bench.scores import classifiers
from bench.scores.metrics import IMAGES, Metric
from bench.studies.images import evaluate
from bench.studies.images.anchors import anchors, phase_randomised
from bench.studies.images.train import Draws, Model, Trainer
from models.batch import decode, encode
from tests.studies.images.test_train import DIGITS, spec

OF_SAMPLES = ("phase-randomised", "noise", "real images")
NEIGHBOURS = [f"neighbour_{each}" for each in ("precision", "n", "recall", "density", "coverage")]


class TestAnchors:
    def test_random_phases_keep_mean_and_spectrum_and_nothing_else(self) -> None:
        x = np.full((3, 3, 32, 32), 0.5, np.float32)
        x[:, :, 16, 16] = np.array([0.6, 0.55, 0.45])  # in range, so that nothing is cut
        found = phase_randomised(x, np.random.default_rng(0))
        before, after = (np.fft.rfft2(each.astype(np.float64)) for each in (x, found))
        np.testing.assert_allclose(np.abs(after), np.abs(before), rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(found.mean((2, 3)), x.mean((2, 3)), rtol=1e-6)
        spread = np.square(found - found.mean((2, 3), keepdims=True))
        assert (spread.max((2, 3)) < 0.05 * spread.sum((2, 3))).all()  # a point is no point now
        phases = np.angle(after)[..., 1:, 1:-1]
        assert np.abs(np.exp(1j * (phases[:, :1] - phases)) - 1).max() < 1e-2  # of all channels
        assert abs(np.exp(1j * (phases[0] - phases[1])).mean()) < 0.2  # not of all images
        assert np.array_equal(found, phase_randomised(x, np.random.default_rng(0)))
        wild = phase_randomised(np.eye(32, dtype=np.float32)[None, None], np.random.default_rng(0))
        assert wild.min() == 0 and wild.max() <= 1

    def test_images_without_a_model_are_what_their_names_say(self) -> None:
        made = {kind: (role, x) for kind, role, x in anchors(DIGITS, 100, 30)}
        assert [kind for kind, (role, _) in made.items() if role == "samples"] == [*OF_SAMPLES]
        assert {len(x) for role, x in made.values() if role == "samples"} == {30}
        test, labels = DIGITS.test / 255, DIGITS.train_labels
        assert labels is not None and DIGITS.test_labels is not None
        of_class = DIGITS.train[:100][labels[:100] == DIGITS.test_labels[3]].mean(0) / 255
        np.testing.assert_allclose(made["class mean"][1][3], of_class, rtol=1e-6)
        other = made["unrelated images"][1]
        assert (np.abs(other - test).max((1, 2, 3)) > 0).all()
        np.testing.assert_allclose(np.sort(other, 0), np.sort(test, 0), rtol=1e-6)
        real = made["real images"][1]
        known = {x.tobytes() for x in DIGITS.train.astype(np.float32) / 255}
        assert {x.tobytes() for x in real} <= known
        assert len({x.tobytes() for x in real}) == 30

    def test_few_images_begin_anew_and_one_has_no_other(self) -> None:
        few = replace(DIGITS, train=DIGITS.train[:4], test=DIGITS.test[:1], train_labels=None)
        made = {kind: x for kind, _, x in anchors(few, 0, 9)}
        assert made.keys() == {"mean image", *OF_SAMPLES}
        assert len({x.tobytes() for x in made["real images"]}) == 4 and len(made["noise"]) == 9

    def test_they_are_scored_as_models_are(self) -> None:
        """Of equal settings alike whatever the method; the mean image by its closed form."""
        found, other = (
            evaluate.anchored(spec(method, samples=200), DIGITS, IMAGES, "cpu")
            for method in ("svae_r", "gan")
        )
        assert found == other
        scores = ("inception_score", "inception_sd", "frechet", "swd", "swd_real", *NEIGHBOURS)
        expected = {f"{kind}: {score}" for kind in OF_SAMPLES for score in scores}
        kinds = ("mean image", "class mean", "unrelated images")
        assert found.keys() == expected | {f"{kind}: mse_x" for kind in kinds}
        x, mean = DIGITS.test / 255, DIGITS.train[:160].mean(0) / 255
        assert found["mean image: mse_x"] == pytest.approx(4 * np.square(x - mean).mean(), rel=1e-5)
        assert found["class mean: mse_x"] < found["mean image: mse_x"]
        assert found["mean image: mse_x"] < found["unrelated images: mse_x"]
        score = {kind: found[f"{kind}: inception_score"] for kind in OF_SAMPLES}
        assert score["noise"] < score["phase-randomised"] < score["real images"] / 2
        assert found["real images: frechet"] < found["phase-randomised: frechet"] / 5
        assert found["real images: swd"] < found["phase-randomised: swd"] / 5
        for name in NEIGHBOURS:
            value = {kind: found[f"{kind}: {name}"] for kind in OF_SAMPLES}
            if name == "neighbour_n":
                assert {*value.values()} == {200}  # as many as samples, of 500 test images
            else:
                assert value["noise"] == 0 and value["phase-randomised"] < 0.05
                assert 0.85 < value["real images"] < 1.15
        more = evaluate.anchored(spec(samples=200, images=0), DIGITS, IMAGES, "cpu")
        assert {name for name in found if more[name] != found[name]} == {
            "mean image: mse_x",
            "class mean: mse_x",
        }

    def test_colour_images_and_a_new_metric_have_them(self) -> None:
        photos = data.load("stand-in photos")
        one = spec(data="stand-in photos", samples=60)
        reach = Metric(("reach",), lambda o: o.samples.max(), "reach")
        found = evaluate.anchored(one, photos, [IMAGES[2], reach], "cpu")
        assert found["noise: swd"] > found["phase-randomised: swd"] > found["real images: swd"]
        assert 0.99 < found["noise: reach"] < 1 == found["real images: reach"]


def test_scores_differ_by_a_share_of_their_size() -> None:
    """An untrained model has a precision of 0 on every device."""
    assert evaluate.apart(2.0, 2.1) == pytest.approx(0.05)
    assert evaluate.apart(0.0, 0.0) == 0 and evaluate.apart(0.0, 0.01) == np.inf
    found = evaluate.differences("cpu", "mnist")
    assert {"neighbour_precision", "swd"} <= found.keys() and not any(found.values())


class TestBatchStatistics:
    def frozen(self, method: str = "svae_r", **fields: Any) -> Trainer:
        one = Trainer(spec(method, **fields), DIGITS.train[:48])
        one.train()
        evaluate.freeze(one)
        return one

    def test_each_image_is_normed_with_its_batch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(evaluate, "STATISTICS", 2)
        one = self.frozen()
        x = torch.from_numpy(np.array(DIGITS.test[:21]))  # batches of 8, 8 and 5
        before = {name: t.clone() for name, t in one.nets.state_dict().items()}
        frozen, batches = evaluate.reconstruct(one, x), evaluate.reconstruct_by_batch(one, x)
        after = one.nets.state_dict()
        assert all(torch.equal(t, after[name]) for name, t in before.items())
        assert not any(module.training for module in one.nets.modules())
        assert torch.equal(evaluate.reconstruct(one, x), frozen)
        assert batches.shape == frozen.shape
        assert ((batches - frozen).abs().amax((1, 2, 3)) > 1e-3).all()
        with torch.no_grad():
            one.nets.train()
            for i, part in enumerate((x[:8], x[8:16], torch.cat([x[16:], x[:3]]))):
                scaled = part.float() / 255
                draws = Draws(scaled, one.spec.stream, f"reconstruct {i}")
                as_trained = decode(one.nets, draws, encode(one.nets, draws, scaled))
                mine = batches[8 * i : 8 * i + 8]
                torch.testing.assert_close(mine, as_trained[: len(mine)])

    def test_methods_that_match_joint_distributions_have_both_errors(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(evaluate, "STATISTICS", 2)
        found = {}
        for method in ("svae_r", "alice", "vae", "gan"):
            one = self.frozen(method, lam=0.0, images=16)
            scores, pictures = evaluate.scores(one, DIGITS, IMAGES)
            found[method] = [name for name in ("mse_x", "mse_x_batch") if name in scores]
            assert pictures.keys() <= {"x", "x_rec", "samples"}
            lacking = evaluate.absent(one.spec, imagenet=False)
            assert ("x_rec_batch" in lacking) == ("mse_x_batch" not in scores)
        both = ["mse_x", "mse_x_batch"]
        assert found == {"svae_r": both, "alice": both, "vae": ["mse_x"], "gan": []}


def test_every_classifier_that_there_is_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first alone scores images that no model made."""
    first, one = classifiers.own("mnist"), spec("gan", lam=0.0)
    model = Model(one, "cpu")
    model.nets.eval()
    monkeypatch.setattr(classifiers, "seeds", lambda name: 1)
    alone = evaluate.scores(model, DIGITS, IMAGES)[0]
    monkeypatch.setattr(evaluate, "_real", evaluate._real.__wrapped__)

    def own(name: str, device: str, seed: int = 0) -> classifiers.Classifier:
        def network(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            logits, features = first.network(x)
            return logits * (1 + seed), features * (1 + seed)

        return replace(first, network=network)

    monkeypatch.setattr(evaluate, "own", own)
    others = ("inception_score_1", "inception_score_2", "frechet_1", "frechet_2")
    for n in (1, 2, 3):
        monkeypatch.setattr(classifiers, "seeds", lambda name, n=n: n)
        found = evaluate.scores(model, DIGITS, IMAGES)[0]
        there = {name for name in others if int(name[-1]) < n}
        assert found.keys() == alone.keys() | there
        assert {name: found[name] for name in alone} == alone
        for name in there:
            if name.startswith("frechet"):  # squared distances
                factor = (1 + int(name[-1])) ** 2
                assert found[name] == pytest.approx(factor * found["frechet"], rel=1e-4)
            else:
                assert found[name] != found["inception_score"]
        missing = {f"{kind}_{i}" for i in range(n, 3) for kind in evaluate.BY_OWN}
        assert {n for n in evaluate.absent(one, False) if n[-1].isdigit()} == missing
        assert not any(n[-1].isdigit() for n in evaluate.anchored(one, DIGITS, IMAGES, "cpu"))
