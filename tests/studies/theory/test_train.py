"""The theory study's trainings: which there are, how they train, and what is measured."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from bench.engine.plan import job_of
from bench.run import parser
from bench.studies.selection import select
from bench.studies.study import Rows
from bench.studies.theory import job
from bench.studies.theory.data import Gaussian, data_of, draws
from bench.studies.theory.evaluate import HOLE, N_CODES, Evaluation, energy, sizes
from bench.studies.theory.report import at_best
from bench.studies.theory.spec import (
    DESCENT,
    EXACT,
    JOINT,
    MODES,
    SD,
    SUPPORTS,
    VANISHING,
    TheorySpec,
)
from bench.studies.theory.study import THEORY
from bench.studies.theory.train import Trainer, prepared
from models.explicit import EXPLICIT, gaussian_kl

SMOKE = THEORY.specs("smoke")


def one(**values: Any) -> TheorySpec:
    """Returns the first smoke training with these values."""
    for spec in SMOKE:
        if all(getattr(spec, name) == value for name, value in values.items()):
            return spec
    raise AssertionError(values)


def trained(specs: list[TheorySpec], tmp_path: Any) -> tuple[Rows, Rows]:
    args = parser().parse_args(["theory"])
    return job.train(job_of(args, specs, tmp_path, "cpu", {}), lambda share: None)


def test_every_experiment_has_five_seeds_and_distinct_ids_at_quick():
    specs = THEORY.specs("quick")
    assert {spec.experiment for spec in specs} == set(TheorySpec.EXPERIMENTS)
    assert len({spec.id for spec in specs}) == len(specs)
    assert {spec.seed for spec in specs} == set(range(5))


def test_methods_lambdas_and_critics_share_their_random_numbers():
    for experiment in (SUPPORTS, DESCENT):
        specs = [s for s in THEORY.specs("quick", seeds=1) if s.experiment == experiment]
        by_stream: dict[Any, set[str]] = {}
        for spec in specs:
            by_stream.setdefault((spec.dimension, spec.critic_steps), set()).add(spec.stream)
        assert all(len(streams) == 1 for streams in by_stream.values())
    first, second = one(experiment=SUPPORTS, critic=EXACT), one(experiment=SUPPORTS, critic=JOINT)
    a, b = (Trainer(spec, "cpu") for spec in (first, second))
    assert all(map(torch.equal, a.joints.parameters(), b.joints.parameters()))
    assert torch.equal(
        next(draws(first, "batches", "cpu")).x, next(draws(second, "batches", "cpu")).x
    )
    other = Trainer(replace(first, seed=1), "cpu")
    assert not all(map(torch.equal, a.joints.parameters(), other.joints.parameters()))


def selected(*options: str) -> list[TheorySpec]:
    found = select(THEORY, "smoke", parser().parse_args(["theory", *options]))
    return [spec for spec in found if isinstance(spec, TheorySpec)]


def test_options_select_and_add():
    assert {s.method for s in selected("--only", "label=sVAE-exact")} == {"svae_exact"}
    added = selected("--only", "method=alice_sigmoid")
    assert {s.experiment for s in added} == {MODES, SUPPORTS, DESCENT}
    assert {s.lam for s in selected("--lam", "0,2") if s.experiment == SUPPORTS} == {0.0, 2.0}
    assert {s.lam for s in selected("--lam", "2") if s.experiment == DESCENT} == {0.0}
    assert {s.dimension for s in selected("--set", "dimension=7")} == {2, 7}  # of DESCENT alone
    assert {s.width for s in selected("--set", "width=5")} == {5}


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"experiment": "x"}, "modes, supports"),
        ({"critic": "x"}, "exact, joint"),
        ({"distance": -1.0}, "distance"),
        ({"dimension": 0}, "dimension"),
    ],
)
def test_values_that_cannot_be_trained_are_named(wrong: dict[str, Any], named: str):
    with pytest.raises(ValueError, match=named):
        replace(SMOKE[0], **wrong)


def test_a_stack_trains_each_model_as_if_alone(tmp_path):
    specs = [s for s in SMOKE if s.experiment == SUPPORTS and s.critic_steps == 5]
    assert len({spec.stream for spec in specs}) == 1
    chosen = [specs[0], next(s for s in specs if s.critic == JOINT)]
    rows, samples = trained(chosen, tmp_path)
    for spec, row, sample in zip(chosen, rows, samples, strict=True):
        (alone,), (points,) = trained([spec], tmp_path)
        times = {"train_seconds", "cpu_seconds"}
        assert {k: v for k, v in row.items() if k not in times} == {
            k: v for k, v in alone.items() if k not in times
        }
        assert all(
            np.array_equal(points[name], sample[name]) for name in ("density_x", "density_z")
        )


def test_every_method_trains_in_every_experiment_that_has_it(tmp_path):
    for experiment in (MODES, DESCENT, VANISHING):
        specs = [replace(s, batch=16) for s in SMOKE if s.experiment == experiment]
        rows, _ = trained(specs, tmp_path)
        assert {row["status"] for row in rows} == {"ok"}


def test_the_critic_alone_learns_from_a_frozen_model():
    trainer = Trainer(one(experiment=VANISHING, distance=8.0), "cpu")
    before = [each.clone() for each in trainer.joints.parameters()]
    start = [each.clone() for each in trainer.critic.parameters()]
    trainer.train([3], lambda stop: None)
    assert all(map(torch.equal, before, trainer.joints.parameters()))
    assert not any(map(torch.equal, start, trainer.critic.parameters()))


@pytest.mark.parametrize("distance", [0.0, 1.0, 8.0])
def test_frozen_joints_differ_by_the_shift_alone(distance: float):
    spec = replace(one(experiment=VANISHING), distance=distance)
    exact = Evaluation(Trainer(spec, "cpu")).exact()
    # Gaussians that differ by a shift of so many deviations: half the square each way.
    assert exact["kl_pq"].item() == pytest.approx(distance**2 / 2, rel=1e-6, abs=1e-6)
    assert exact["kl_qp"].item() == pytest.approx(distance**2 / 2, rel=1e-6, abs=1e-6)


def test_excess_loss_is_over_the_optimal_critic():
    spec = one(experiment=VANISHING, distance=1.0)
    trainer = Trainer(spec, "cpu")
    evaluation = Evaluation(trainer)
    assert evaluation.vanishing()["excess"] > 0
    best = trainer.joints.held()
    trainer.critic.forward = best  # type: ignore[method-assign]
    found = evaluation.vanishing()
    assert found["excess"] == pytest.approx(0, abs=1e-9)
    # f* is linear with this slope, and (18) has of it what the quadrature says.
    assert found["gradient svae_r"] == pytest.approx(spec.distance / SD, rel=1e-3)
    ratio = found["gradient alice_minimax"] / found["gradient svae_r"]
    assert ratio == pytest.approx(at_best(spec.distance), rel=0.02)


def test_reductions_send_what_their_derivative_says():
    f = torch.tensor([2.0, -1.0])
    found, s = sizes(f, 3.0), torch.sigmoid(f)
    wanted = {"svae_r": torch.ones(2), "alice": s, "alice_minimax": 1 - s}
    wanted["alice_sigmoid"] = s * (1 - s)
    for name, each in wanted.items():
        size = 3 * float(each.square().mean().sqrt())
        assert found[f"gradient {name}"] == pytest.approx(size, rel=1e-5)


def test_cosines_tell_whom_each_player_follows():
    # At the start of DESCENT the joints are far apart, so the divergences point elsewhere.
    spec = replace(one(experiment=DESCENT, method="svae_r"), critic=EXACT)
    found = Evaluation(Trainer(spec, "cpu")).descent()
    assert found["decoder follows kl_pq"] > 0.99 > found["decoder follows kl_s"]
    assert found["encoder follows kl_qp"] > 0.99 > found["encoder follows kl_s"]
    assert found["value"] == pytest.approx(found["kl_s"], rel=0.05)
    assert found["believed"] == pytest.approx(found["value"], rel=1e-5)
    completed = replace(spec, method="svae_exact")
    found = Evaluation(Trainer(completed, "cpu")).descent()
    assert min(found[f"{player} follows kl_s"] for player in ("decoder", "encoder")) > 0.99


def test_energy_distance():
    torch.manual_seed(0)
    a = torch.randn(600, 2)
    assert abs(energy(a, torch.randn(600, 2))) < 0.02
    x, y = torch.tensor([[0.0], [1.0]]), torch.tensor([[3.0], [5.0]])
    assert energy(x, y) == pytest.approx(2 * (3 + 5 + 2 + 4) / 4 - 1 - 2)


def test_the_prior_beside_codes_of_a_known_encoder():
    trainer = Trainer(replace(one(experiment=SUPPORTS, critic=EXACT), width=4), "cpu")
    encoder = trainer.joints.encoder
    with torch.no_grad():  # every code is N((1, 0), .5^2), whatever x is
        for layer in encoder.net:
            for each in layer.parameters():
                each.zero_()
        encoder.widen(0.5)
        last = encoder.net[-1].bias
        assert isinstance(last, torch.Tensor)
        last[0] = 1.0
    found = Evaluation(trainer).scores()
    code = torch.tensor([1.0, 0.0]).double(), torch.eye(2).double() / 4
    prior = torch.zeros(2).double(), torch.eye(2).double()
    assert found["prior_pq"] == pytest.approx(float(gaussian_kl(prior, code)), rel=0.05)
    assert found["prior_qp"] == pytest.approx(float(gaussian_kl(code, prior)), rel=0.1)
    z = np.random.default_rng(0).standard_normal((100_000, 2))
    log_q = -2 * np.square(z - [1, 0]).sum(1) + math.log(4)
    hole = (log_q + np.square(z).sum(1) / 2 < math.log(HOLE)).mean()
    assert found["holes"] == pytest.approx(hole, abs=4 * math.sqrt(0.25 / N_CODES))


def test_densities_integrate_to_their_mass_on_the_square():
    trainer = Trainer(replace(one(experiment=SUPPORTS, critic=EXACT), width=8), "cpu")
    found = Evaluation(trainer).densities()
    step = (7 / 56) ** 2
    assert found["density_x"].sum() * step == pytest.approx(1, abs=0.1)
    line = Evaluation(Trainer(one(experiment=MODES), "cpu")).densities()["density_x"]
    assert line.sum() * 10 / 200 == pytest.approx(1, abs=0.05)


def test_the_start_is_a_vae_of_its_stream():
    spec = replace(one(experiment=SUPPORTS, critic=EXACT), batch=32)
    other = replace(spec, method="joint_wgan_gp", critic=JOINT)  # with an Adam of its own
    a, b = prepared(spec, "cpu"), prepared(other, "cpu")
    assert all(map(torch.equal, a.parameters(), b.parameters()))
    fresh = Trainer(spec, "cpu").joints
    assert not all(map(torch.equal, a.parameters(), fresh.parameters()))
    pairs = (
        Evaluation(Trainer(spec, "cpu", a)).sampled(),
        Evaluation(Trainer(spec, "cpu")).sampled(),
    )
    assert pairs[0]["kl_qp"] < pairs[1]["kl_qp"]


def test_data_have_their_density():
    for experiment, spread in ((MODES, 4.25), (SUPPORTS, 3.24)):
        data = data_of(one(experiment=experiment))
        x = data.sample(50_000, np.random.default_rng(0))
        assert np.square(x).mean() == pytest.approx(spread, rel=0.02)
    d = data_of(one(experiment=DESCENT))
    assert isinstance(d, Gaussian)
    x = torch.from_numpy(d.sample(1000, np.random.default_rng(0)))
    law = torch.distributions.MultivariateNormal(
        torch.from_numpy(d.mean).float(), torch.from_numpy(d.covariance).float()
    )
    assert torch.allclose(d.log_density(x), law.log_prob(x), atol=1e-4)


def test_labels_name_every_method():
    assert all(THEORY.label(method, 0.0) for method in EXPLICIT)
    assert THEORY.label("svae_r", 0.1) == "sVAE-r"
    assert THEORY.label("svae_exact", 0.0) == "sVAE-exact"
