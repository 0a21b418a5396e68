"""Ratios are compared with recorded ones by a bound, and the JAX program does the suite's work."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from bench.speed import __main__ as speed
from bench.speed.__main__ import by_name, main, of_runs, recorded, too_low

LINES = [
    ("steps, width 32", "1.21 x, 58% of this core's 146 GFLOP/s in products", ">= 1.2 x"),
    ("steps, width 64", "0.90 x", ">= 1.2 x"),
    ("peak memory", "0.91 GiB", "<= 2 GiB"),
]


def lines(**ratios: float) -> list[tuple[str, str, str]]:
    return [(name, f"{ratio} x of it", ">= 1 x") for name, ratio in ratios.items()]


RUNS = [1.20, 1.24, 1.22, 1.18, 1.21, 1.23, 1.19, 1.22, 1.20, 1.21]


def test_the_bound_is_students_prediction_interval() -> None:
    """For these runs and one ratio it is 1.21 exp(-1.833 * 0.0150 * sqrt(1.1)) = 1.175."""
    runs = [line for run in RUNS for line in lines(a=run)]
    assert not too_low(lines(a=1.18), runs)
    (line,) = too_low(lines(a=1.17), runs)
    assert line == "a: 1.17 x, below 1.18 x, the bound from 10 runs"
    both = [line for run in RUNS for line in lines(a=run, b=run)]
    assert not too_low(lines(a=1.17, b=2.0), both)  # there are two chances to be wrong
    assert not too_low(lines(a=1.2, new=0.1), [*runs, *lines(new=1.0)])


def test_the_table_has_the_median_run_and_the_extremes() -> None:
    (line,) = of_runs([line for run in (1.3, 1.1, 1.2) for line in lines(a=run)])
    assert line == ("a", "1.2 x (1.10 to 1.30 in 3 runs) of it", ">= 1 x")


def test_a_run_is_recorded_and_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = iter([LINES] * 3 + [[("steps, width 32", "0.60 x", ">= 1.2 x"), *LINES[1:]]])
    monkeypatch.setattr(speed, "RECORDED", tmp_path / "ratios.csv")
    monkeypatch.setattr(speed.toy, "ratios", lambda: [next(runs)])
    monkeypatch.setattr(speed.toy, "limits", lambda folder: [LINES[2:]])
    monkeypatch.setattr(speed.images, "ratios", lambda: [])
    assert main(["--record"]) == main(["--record"]) == 0
    assert recorded() == [*LINES[:2], *LINES[:2]]
    assert main(["--check"]) == 0
    capsys.readouterr()
    assert main(["--check"]) == 1
    (error,) = capsys.readouterr().err.splitlines()
    assert error.startswith("steps, width 32: 0.60 x, below 1.21 x")
    assert main(["--recorded", "--out", str(tmp_path / "table.md")]) == 0
    table = (tmp_path / "table.md").read_text("utf-8")
    assert "1.21 x (1.21 to 1.21 in 2 runs), 58% of" in table and "0.91 GiB" in table


def test_rows_that_are_timed_count_as_todays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speed.toy, "MANY", 10)
    names = [name for name, *_ in speed.toy.many_results(tmp_path)]
    assert names[1:] == ["status of 10 stored runs", "load of 10 runs for a report"]


def test_recorded_ratios_are_those_of_ten_runs() -> None:
    runs = by_name(recorded())
    assert {len(found) for found in runs.values()} == {10}
    assert sum("JAX" in name for name in runs) == len(speed.toy.WIDTHS)


PARITY = """
import numpy as np, torch
from jax import numpy as jnp
from bench.speed.baselines import jax_toy
from bench.speed.baselines.toy import BETAS, PlainTrainer
from bench.speed.toy import spec
from models.objectives import OBJECTIVES, regularised, squared_error

one = spec(32)
ours, theirs = PlainTrainer(one), jax_toy.JaxTrainer(one, 1)
layers = [
    [np.array(p[None] if p.dim() == 2 else p[None, None]) for p in net.state_dict().values()]
    for net in (ours.encoder, ours.decoder, ours.critic)
]
encoder, decoder, critic = [
    [jnp.asarray(p.swapaxes(1, 2) if i % 2 == 0 else p) for i, p in enumerate(net)]
    for net in layers
]
x, z, eps = torch.randn(128, 2), torch.randn(128, 2), torch.randn(4, 128, 2)
jx, jz, je = (jnp.asarray(t.numpy()) for t in (x[None], z[None], eps[:, None]))
z_x, x_z = ours.code(x, z, eps[:2])
f = ours.logits(x, z_x, x_z, z)
z_rec, x_rec = ours.code(x_z, z_x, torch.stack([eps[3], eps[2]]))
objective = OBJECTIVES["svae_r"]
model = regularised(objective.model(*f), one.lam, squared_error(x, x_rec, z, z_rec))
codes = [jnp.asarray(t.detach().numpy()[None]) for t in (z_x, x_z)]
assert np.allclose(theirs.critic_loss(critic, jx, jz, *codes), objective.critic(*f).item(), 1e-5)
assert np.allclose(theirs.model_loss((encoder, decoder), critic, jx, jz, je), model.item(), 1e-5)

p = torch.randn(5, requires_grad=True)
# A copy, because JAX may share memory with an array, and Adam overwrites p's.
adam, q = torch.optim.Adam([p], lr=1e-3, betas=BETAS), jnp.array(p.tolist())
state = jax_toy.fresh(q)
for _ in range(3):
    p.grad = torch.randn(5)
    adam.step()
    q, state = jax_toy.adam(q, jnp.asarray(p.grad.numpy()), state, 1e-3)
assert np.allclose(q, p.detach().numpy(), atol=1e-6)
before = theirs.state
theirs.advance()
assert theirs.state[1][0] == theirs.state[3][0] == 3 * len(theirs.data[0])
print("equal")
"""


@pytest.mark.skipif(find_spec("jax") is None, reason="needs JAX")
def test_the_jax_program_does_the_suites_work() -> None:
    """It runs in a process of its own, since JAX warns of every fork after it."""
    command = [sys.executable, "-c", PARITY]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == "equal\n", done.stderr
