"""The measurements of a GPU run on a CPU with small sizes; bytes are counted by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from bench.speed import __main__ as speed
from bench.speed import gpu
from bench.speed.gpu import Device, Sizes, Stack, traffic
from bench.studies.toy_grid.job import flops
from models.precision import allow_tf32

TINY = Sizes("smoke", rows=16, numbers=64, steps=1, together=(1, 2), images=20)


def adam(parameter: Tensor) -> Callable[[], object]:
    optimiser = torch.optim.Adam([parameter], fused=True)
    parameter.grad = torch.ones_like(parameter)
    optimiser.step()  # makes the moments
    return optimiser.step


A, B, BIAS = torch.ones(4, 8), torch.ones(8, 2), torch.ones(2)
COUNTED: dict[str, tuple[Callable[[], object], int]] = {
    "a product": (lambda: A @ B, 4 * 8 + 8 * 2 + 4 * 2),
    "in place": (lambda: A.relu_(), 2 * 4 * 8),
    "a view": (lambda: A.T.unsqueeze(0).expand(3, -1, -1), 0),
    "what is overwritten": (lambda: A.zero_(), 4 * 8),
    "a copy": (lambda: torch.empty(4, 8).copy_(A), 2 * 4 * 8),
    "repeated numbers": (lambda: BIAS.expand(9, 2) + 1, 2 + 9 * 2),
    # Parameter, gradient and two moments are read; all but the gradient are written. One is added
    # to the step's number, which is then read.
    "Adam": (adam(torch.nn.Parameter(torch.ones(100))), 4 * 100 + 3 * 100 + 2 + 1),
}


@pytest.mark.parametrize("what", COUNTED)
def test_bytes_are_what_operations_read_and_write(what: str) -> None:
    work, numbers = COUNTED[what]
    assert traffic(work) == 4 * numbers


def test_gradients_count_too() -> None:
    x = torch.ones(10, requires_grad=True)
    forward = traffic(lambda: x.square().sum())
    assert traffic(lambda: x.square().sum().backward()) > forward + 4 * 2 * 10


@pytest.mark.parametrize("name", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_every_measurement_runs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "PRECISIONS", ("float32", "bf16"))
    monkeypatch.setattr(gpu, "TOGETHER", {"mnist": "bf16"})
    text = gpu.report(Device(name, TINY))
    assert "failed" not in text, text
    assert "Left out" not in text and "nan" not in text
    for start in (
        "product of 16 x 16, bf16",
        "a copy",
        "toy_grid, 4 trainings, 1 : 3 updates, λ > 0, tf32",
        "toy_grid, 4 trainings, 1 : 3 updates, λ = 0, float32",
        "toy_grid at smoke scale, 8 trainings, tf32",
        "mnist at smoke width, bf16, channels first, cudnn.benchmark on",
        "mnist at smoke width, bf16, 2 at once",
        "AIS of mnist, 10 images x 2 chains",
        "scores of mnist, 500 samples",
    ):
        assert text.count(f"\n| {start}") == 1, start
    assert f"torch {torch.__version__}" in text
    assert not torch.backends.cudnn.benchmark
    assert torch.get_float32_matmul_precision() == "highest"


def test_shares_are_of_rates_of_the_same_precision() -> None:
    device = Device("cpu", products={"float32": 1e12, "bf16": 4e12}, bandwidth=2e11)
    assert device.line("a", "b", "float32", 5e11, 1e11) == ("a", "b", "50%", "50%")
    assert device.line("a", "b", "bf16", 1e12, 2e11) == ("a", "b", "25%", "100%")
    assert device.line("a", "b", "tf32", 1e12, 2e11) == ("a", "b", "", "100%")


def test_the_stacks_that_are_timed_have_fewest_and_most_updates() -> None:
    found = [
        (s[0].critic_steps, s[0].model_steps, s[0].lam > 0) for s in gpu.kinds("paper", "tf32")
    ]
    assert found == [(1, 1, True), (5, 5, True), (1, 1, False), (5, 5, False)]
    assert {spec.precision for stack in gpu.kinds("paper", "tf32") for spec in stack} == {"tf32"}


def test_the_studys_time_follows_its_flops() -> None:
    """Seconds of 1 + 2e-15 FLOPs without the cycle, and of 3e-15 FLOPs with it."""
    device, few = Device("cpu", products={"float32": 1e15}), gpu.kinds("paper", "float32")
    cost = {False: (1.0, 2e-15), True: (0.0, 3e-15)}
    device.stacks["float32"] = [
        Stack(s[0].lam > 0, n := sum(map(flops, s)), a + b * n)
        for s in few
        for a, b in [cost[s[0].lam > 0]]
    ]
    seconds = work = 0.0
    for stack in gpu._cut("paper", "float32"):
        a, b = cost[stack[0].lam > 0]
        seconds += a + b * sum(map(flops, stack))
        work += sum(map(flops, stack))
    ((what, here, share, _),) = gpu.toy_whole(device, "float32")
    assert f"{sum(map(len, gpu._cut('paper', 'float32'))):,} trainings" in what
    assert here.startswith(gpu.duration(seconds, 3)) and share == f"{work / seconds / 1e15:.0%}"
    with pytest.raises(RuntimeError, match="no such stack was measured"):
        next(gpu.toy_whole(device, "tf32"))


@pytest.mark.parametrize("layout", gpu.LAYOUTS)
def test_a_layout_is_that_of_weights_and_moments(layout: str) -> None:
    trainer = gpu.trainer_of(Device("cpu", TINY), "cifar10", layout=layout)
    weights = [p for p in trainer.nets.parameters() if p.dim() == 4]
    assert weights and all(p.is_contiguous(memory_format=gpu.LAYOUTS[layout]) for p in weights)
    for optimiser in (trainer.critic_adam, trainer.model_adam):
        assert optimiser is not None
        for parameter, state in optimiser.state.items():
            assert state["exp_avg"].stride() == parameter.stride()


def test_trainings_at_once_all_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, make = [], gpu.trainer_of

    def trainer_of(*arguments: object, **more: object) -> gpu.Trainer:
        begun.append(make(*arguments, **more))  # type: ignore[arg-type]
        return begun[-1]

    monkeypatch.setattr(gpu, "trainer_of", trainer_of)
    ((what, here, _, _),) = gpu.together(Device("cpu", TINY), "mnist", "float32", 3)
    assert "3 at once" in what and here.endswith("steps/s in all")
    assert [trainer.step for trainer in begun] == [3, 3, 3]  # recorded, warm, timed
    assert len({trainer.spec.stream for trainer in begun}) == 3


def test_what_does_not_fit_into_three_minutes_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 0.0

    def taking(seconds: float, error: Exception | None = None) -> Iterator[gpu.Line]:
        nonlocal now
        now += seconds
        if error:
            raise error
        yield f"{seconds} s", "fast", "10%", "20%"

    monkeypatch.setattr(
        gpu,
        "measurements",
        lambda device: [
            ("short", lambda: taking(5)),
            ("broken", lambda: taking(1, RuntimeError("CUDA error:\n  lost"))),
            ("too large", lambda: taking(1, torch.OutOfMemoryError("2 GiB"))),
            ("no graph", lambda: taking(1, gpu.Unrecorded("it syncs", ("svae_r",)))),
            ("long", lambda: taking(40)),
            ("last", lambda: taking(30)),
            ("beyond", lambda: taking(1)),
        ],
    )
    lines, left = gpu.measure(Device("cpu"), limit=90, clock=lambda: now)
    assert [line[:2] for line in lines] == [
        ("5 s", "fast"),
        ("broken", "failed: CUDA error: lost"),
        ("too large", "failed: out of memory"),
        ("no graph", "failed: it syncs"),
        ("40 s", "fast"),
        ("30 s", "fast"),
    ]
    assert left == ["beyond"] and now <= 90
    assert "5 s: fast 10% 20%" in capsys.readouterr().out.splitlines()
    now = 0.0
    text = gpu.report(Device("cpu"))
    assert "Left out" not in text and "Measured on one " in text


def test_rounding_ends_with_its_measurement() -> None:
    allow_tf32(False)
    with pytest.raises(RuntimeError, match="lost"), gpu.rounding("tf32"):
        assert torch.get_float32_matmul_precision() == "high"
        raise RuntimeError("lost")
    assert torch.get_float32_matmul_precision() == "highest"


def test_scores_are_of_as_many_images_as_asked() -> None:
    few = gpu.drawn("stand-in digits")
    few = replace(few, train=few.train[:3], test=few.test[:2])
    many = gpu._many(few, 5)
    assert np.array_equal(many.train, few.train[[0, 1, 2, 0, 1]])
    assert np.array_equal(many.test, few.test[[0, 1, 0, 1, 0]])


def test_the_command_needs_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert speed.main(["--device", "cuda"]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.splitlines() == [
        "python -m bench.speed: --device cuda, but torch sees no CUDA device; allowed here: cpu"
    ]
    assert speed.main(["--device", "cuda", "--check"]) == 2
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(gpu, "report", lambda device: f"of {device.name}")
    assert speed.main(["--device", "cuda", "--out", str(tmp_path / "table.md")]) == 0
    assert (tmp_path / "table.md").read_text("utf-8") == "of cuda"
